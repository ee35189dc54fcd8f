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
                    .optional("message", .text("What is wrong; missing when nothing is.")),
                    .required("sizeBytes", .count("The size in force.")),
                    .required("wantedSizeBytes", .count("The size that it is coming to; the same when nothing changes.")),
                    .required("isOwnSize", .flag("True when the size was set here, false when it is the configuration's.")),
                    .required("bytesToEmpty", .count("What is behind the end that it gets, and has not left yet.")),
                    .required("blocks", .count("Blocks of 4 KiB with data.")),
                    .required("hits", .count("Blocks served since the start.")),
                    .required("misses", .count("Reads that found a block missing.")),
                    .required("evicted", .count("Blocks that made room for others.")),
                    .required("moved", .count("Blocks that made room and were kept, because they had been asked for.")),
                    .required("corrupt", .count("Blocks found damaged and fetched again.")),
                    .required("indexBytes", .count("The memory of its index.")),
                ])
        ),
        (
            "CacheChange",
            .object(
                "What is to change; the rest stays.",
                [.optional("sizeBytes", .count("The size, at least 16 MiB; 0 for what the configuration says.", 0...(4 << 40)))])
        ),
    ]
}
