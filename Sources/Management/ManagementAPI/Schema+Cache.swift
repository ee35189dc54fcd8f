import APIModels

extension Schema {
    static let cacheSchemas: [(String, Schema)] = [
        (
            "EdgeCache",
            .object(
                "The cache of a cloud edge.",
                [
                    .required("path", .text("Its file or block device.")),
                    .required("state", .words("Whether it does its work.", EdgeCache.State.self)),
                    .optional("message", .text("What is wrong, why, and what to do; missing when nothing is.")),
                    .required("sizeBytes", .count("The size in force.")),
                    .required("wantedSizeBytes", .count("The size that it is coming to; the same when nothing changes.")),
                    .required("isOwnSize", .flag("True when the size was set here, false when it is the configuration's.")),
                    .required("bytesToEmpty", .count("What is behind the end that it gets, and has not left yet.")),
                    .required(
                        "blocks",
                        .count("Blocks of 4 KiB that volumes have here; one that is stored once for several places counts for each.")),
                    .required("heldBytes", .count("The same in bytes.")),
                    .required("storedBytes", .count("The same with each block counted once: the room that it takes.")),
                    .required("sharedBlocks", .count("Blocks that are stored once for several places.")),
                    .required("sharedReferences", .count("The places that have one of them.")),
                    .required("hits", .count("Blocks served since the start.")),
                    .required("misses", .count("Blocks read that were fetched since the start.")),
                    .required("evicted", .count("Blocks that made room for others.")),
                    .required("moved", .count("Blocks that made room and were kept, because they had been asked for.")),
                    .required("corrupt", .count("Blocks found damaged and fetched again.")),
                    .required("indexBytes", .count("The memory of its index.")),
                    .optional(
                        "partitions",
                        .list(
                            "The parts that only some volumes use; missing while they are not known, before home has sent the key.",
                            of: .reference("CachePartition"))),
                    .required(
                        "isLoosened",
                        .flag("True when the cache has too little room for its partitions, shares and pins, and keeps only a part.")),
                ])
        ),
        (
            "CacheChange",
            .object(
                "What is to change; the rest stays.",
                [
                    .optional("sizeBytes", .count("The size, at least 16 MiB; 0 for what the configuration says.", 0...(4 << 40)))
                ])
        ),
        (
            "CachePartition",
            .object(
                "A part of the cache that only some volumes use.",
                [
                    .required("name", .text("Its name.", .name)),
                    .required("sizeBytes", .count("Its size.")),
                    .required("heldBytes", .count("What is used of it.")),
                ])
        ),
        (
            "CachePartitionSize",
            .object(
                "How large a partition of the cache is to be.",
                [.required("sizeBytes", .count("Its size.", 1...(4 << 40)))])
        ),
        (
            "CacheShare",
            .object(
                "What a volume may have of the cache, and has.",
                [
                    .required("volume", .text("The volume's name.")),
                    .optional("partition", .text("The partition that it uses; missing for the shared one.")),
                    .required("guaranteedBytes", .count("So much of its partition no other volume takes from it.")),
                    .optional("mostBytes", .count("More it never has; missing for as much as there is.")),
                    .required("pins", .list("Ranges that stay once they are there.", of: .reference("CachePin"))),
                    .required("pinnedBytes", .count("How much is pinned.")),
                    .required("pinnedHeldBytes", .count("How much of that is in the cache.")),
                    .required("heldBytes", .count("How much of the volume is in the cache.")),
                ])
        ),
        (
            "CachePin",
            .object(
                "A range of a volume, in whole blocks of 4 KiB: others are rounded.",
                [
                    .required("startBytes", .count("Where it begins on the disk.")),
                    .required("sizeBytes", .count("How long it is.", 1...Int64.max)),
                ])
        ),
        (
            "CacheShareChange",
            .object(
                "What is to change; the rest stays.",
                [
                    .optional("partition", .text("The partition that it is to use; empty for the shared one.", .bytes(0...64))),
                    .optional("guaranteedBytes", .count("So much no other volume takes from it; 0 for nothing.", 0...(4 << 40))),
                    .optional("mostBytes", .count("More it never has; 0 for as much as there is.", 0...(4 << 40))),
                    .optional("pin", .list("Ranges that are to stay once they are there.", of: .reference("CachePin"), most: 256)),
                    .optional("unpin", .list("Ranges that need not stay; before those to pin.", of: .reference("CachePin"), most: 256)),
                ])
        ),
    ]
}
