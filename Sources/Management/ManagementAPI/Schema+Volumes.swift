import APIModels

extension Schema {
    static let volumeSchemas: [(String, Schema)] = [
        (
            "Volume",
            .object(
                "A disk as it is served to a machine at another edge.",
                [
                    .required("name", .text("The volume's name.")), .required("identifier", .text("Random, new with each attach.")),
                    .optional("disk", .text("The name of its disk.")), .optional("edge", .text("The cloud edge that serves it.")),
                    .required("state", .words("Where it is in its life.", Volume.State.self)),
                    .optional("message", .text("What is wrong and what to do.")), .required("sizeBytes", .count("Its size.")),
                    .optional("target", .reference("VolumeTarget")),
                    .optional("url", .text("libiscsi's URL, without the secret.")),
                    .optional("nbdURL", .text("The NBD URL; missing when the edge does not serve NBD.")),
                    .required("generation", .count("The generation of its lease.")),
                    .required("points", .reference("VolumePoints")), .optional("unsent", .reference("VolumeUnsent")),
                    .optional("writeLog", .reference("VolumeWriteLog")),
                    .optional("cache", .reference("VolumeCache")),
                    .optional("cloudOnlyBytes", .count("Bytes that only the cloud edge has; missing when nothing ever was cloud-only.")),
                    .required("policy", .reference("VolumePolicy")),
                    .optional("keeping", .reference("VolumeKeeping", "Missing when no past points are kept.")),
                    .optional("limits", .reference("VolumeLimits", "Missing when nothing is limited.")),
                    .optional("throttle", .reference("VolumeThrottle")),
                    .optional("readOnly", .flag("True when machines may only read it.")),
                    .optional("removable", .flag("True when machines may eject its medium and load it.")),
                    .required("io", .reference("VolumeIO")),
                ])
        ),
        page("Volume"),
        (
            "VolumeTarget",
            .object(
                "Where a machine finds the volume.",
                [
                    .optional("name", .text("What the volumes of one target name.")),
                    .required("iqn", .text("The iSCSI qualified name.")),
                    .required("logicalUnit", .count("The logical unit number.")),
                    .required("portals", .list("host:port of each portal.", of: .text("host:port"))),
                    .optional("chapUser", .text("The user that the initiator logs in as.")),
                    .required("mutual", .flag("True when the target proves itself too.")),
                ])
        ),
        (
            "VolumePoints",
            .object(
                "The newest consistency points, by number; zero means none.",
                [
                    .required("lastSealed", .count("Sealed at the cloud edge.")),
                    .required("received", .count("Durable at the on-prem edge.")),
                    .required("applied", .count("On the disk.")),
                    .optional(
                        "appliedConsistency",
                        .words(
                            "At home: what the applied point is, where it says so; else it is crash-consistent.", Bracket.Consistency.self)),
                    .optional("appliedLabel", .text("At home: what the applied point is called.")),
                ])
        ),
        (
            "VolumeUnsent",
            .object(
                "Acknowledged writes that the on-prem edge does not have yet.",
                [
                    .required("bytes", .count("Their size.")), .required("points", .count("Sealed points among them.")),
                    .optional("oldestSeconds", .number("The age of the oldest one; missing when there is none.")),
                ])
        ),
        (
            "VolumeWriteLog",
            .object(
                "The log of what is unsent, on the cloud edge's disk. From 75 % of its size on writers are slowed; in a full one they wait.",
                [
                    .required("usedBytes", .count("What it takes on disk; or eight times indexBytes, when that is more.")),
                    .optional("indexBytes", .count("What its index takes of memory.")),
                    .required("sizeBytes", .count("What it may take.")),
                    .required("isOwnSize", .flag("True when the size was set for this volume, and is not the edge's own.")),
                    .optional(
                        "fullInSeconds",
                        .number(
                            "How long until it is full if all goes on as in the last minutes; missing while it does not fill, or is full.")),
                    .required("waitedWrites", .count("Writes that had to wait because it was full or nearly so.")),
                    .required("waitSeconds", .number("How long they waited, all together.")),
                ])
        ),
        (
            "VolumeCache",
            .object(
                "What the cache holds of the volume, and how it served since the start.",
                [
                    .required("blocks", .count("Blocks of 4 KiB.")), .required("bytes", .count("Their size.")),
                    .required("hits", .count("Blocks read that were there.")),
                    .required("misses", .count("Blocks read that were fetched.")),
                    .required("corrupt", .count("Blocks found damaged and fetched again.")),
                ])
        ),
        (
            "VolumePolicy",
            .object(
                "When points are sealed.",
                [
                    .required(
                        "recoveryPointObjectiveSeconds", .number("At least this often while there are writes.", 0.05...86_400)),
                    .required("sealBytes", .count("As soon as this much was written.", (1 << 20)...(1 << 30))),
                ])
        ),
        (
            "VolumeKeeping",
            .object(
                "How many of the points that the disk was at are kept at home.",
                [
                    .required(
                        "points",
                        .count("How many before the one that it is at; 0 for none.", 0...Int64(Volume.Keeping.pointsMax))),
                    .required(
                        "bytes",
                        .count("What they may take in the state directory; beyond it the oldest go.", (1 << 20)...(1 << 50))),
                ])
        ),
        (
            "KeptPoints",
            .object(
                "The points that the disk of a volume can be read at, or go back to.",
                [
                    .required("volume", .text("The volume's name.")),
                    .optional("keeping", .reference("VolumeKeeping", "Missing when no past points are kept.")),
                    .required("onDisk", .count("The point that the disk is at.")),
                    .required(
                        "past",
                        .list("The points before it that are kept, oldest first.", of: .reference("PastPoint"))),
                ])
        ),
        (
            "PastPoint",
            .object(
                "A point that the disk has left, and that is kept.",
                [
                    .required("point", .count("Its number.")), .required("leftAt", .time("Until when the disk was at it.")),
                    .required("bytes", .count("What keeping it takes.")),
                    .optional("label", .text("What whoever asked for it has called it.")),
                    .optional("cut", .count("The cut of the volume's group that it is a part of.")),
                ])
        ),
        (
            "VolumeLimits",
            .object(
                "How much machines may ask of a volume. What is missing is not limited.",
                [
                    .optional(
                        "operationsPerSecond", .count("Reads, writes and unmaps, whatever their size.", 1...10_000_000)),
                    .optional(
                        "burstOperations",
                        .count("What a volume that was quiet may do at once; a tenth of a second's worth when left out.", 1...1_000_000_000)
                    ),
                    .optional("bytesPerSecond", .count("Bytes read and written.", 65_536...(1 << 40))),
                    .optional(
                        "burstBytes",
                        .count("What a volume that was quiet may move at once; a tenth of a second's worth when left out.", 1...(1 << 44))),
                ])
        ),
        (
            "VolumeThrottle",
            .object(
                "What the limits did since the cloud edge opened the volume.",
                [
                    .required("operations", .count("Operations that had to wait.")),
                    .required("waitSeconds", .number("How long they waited, all together.")),
                    .required("refused", .count("Those that waited too long: the machine was told to repeat them.")),
                    .required("waiting", .count("Operations that wait now.")),
                ])
        ),
        (
            "VolumeIO",
            .object(
                "What machines asked for since the start, and what went home of it.",
                [
                    .required("readBytes", .count("Bytes read.")), .required("writtenBytes", .count("Bytes written.")),
                    .required("reads", .count("Read commands.")), .required("writes", .count("Write commands.")),
                    .required("sentBytes", .count("Bytes of points that were prepared for the link, before compression.")),
                ])
        ),
        (
            "VolumeCredentials",
            .object(
                "How a machine logs in. Keep it secret.",
                [
                    .required("user", .text("The CHAP user.")), .required("secret", .text("The CHAP secret.")),
                    .optional("mutualUser", .text("The user that the target proves to be.")),
                    .optional("mutualSecret", .text("The secret that it proves it with.")),
                    .optional("url", .text("libiscsi's URL with user and secret; missing while no edge serves the volume.")),
                ])
        ),
        (
            "RecoveryKeys",
            .object(
                "What opens a cloud edge's state without the on-prem edge. Keep it secret, and away from both edges.",
                [
                    .required("version", .count("The version of this form: 2.")),
                    .required(
                        "exportedAt",
                        .time(
                            "When the keys were exported. A volume that was attached again since, or whose key was rotated, has another key."
                        )),
                    .required("onPremEdge", .text("The identifier of the on-prem edge.")),
                    .required("volumes", .list("The keys of volumes.", of: .reference("RecoveryVolumeKey"))),
                    .required(
                        "caches", .list("The keys of cloud edges' caches; empty for one volume.", of: .reference("RecoveryCacheKey"))),
                ])
        ),
        (
            "RecoveryVolumeKey",
            .object(
                "One generation of the key of a volume, as it is attached now or was last.",
                [
                    .required("volume", .text("The volume's name.")),
                    .required("identifier", .text("The identifier of its attachment, 32 hexadecimal digits.")),
                    .required("disk", .text("The name of its disk.")),
                    .required("sectorCount", .count("The disk's size in sectors of 512 bytes; 0 when it could not be asked.")),
                    .optional("generation", .count("Which of the volume's keys it is.")),
                    .required("dataKey", .text("32 bytes in base64.")),
                ])
        ),
        (
            "RecoveryCacheKey",
            .object(
                "The key of the tables of one cloud edge's cache.",
                [
                    .required("edge", .text("The cloud edge's identifier.")), .required("key", .text("32 bytes in base64.")),
                ])
        ),
        (
            "SealResult",
            .object(
                "A sealed point.",
                [
                    .required("volume", .text("The volume's name.")), .required("point", .count("The point's number.")),
                    .required("state", .words("How far it had come.", SealResult.State.self)),
                ])
        ),
        (
            "VolumeRegions",
            .object(
                "Which writes of a volume go home.",
                [
                    .required("volume", .text("The volume's name.")),
                    .required("defaultPolicy", .words("Where writes go that are in no region.", VolumeRegions.Policy.self)),
                    .required("regions", .list("The regions, by their starts.", of: .reference("VolumeRegion"))),
                    .required("regionsMax", .count("How many regions the volume may have.")),
                    .required("cloudOnlyBytes", .count("The bytes that only the cloud edge has.")),
                    .required("imaging", .flag("True while cloud-only writes are being brought home.")),
                ])
        ),
        (
            "VolumeRegion",
            .object(
                "A range with a write policy of its own.",
                [
                    .required("startBytes", .count("Where it begins on the disk.")), .required("sizeBytes", .count("How long it is.")),
                    .required("policy", .words("Where writes to it go.", VolumeRegions.Policy.self)),
                    .required("origin", .words("Who has made it.", VolumeRegions.Origin.self)),
                    .required("cloudOnlyBytes", .count("The bytes of it that only the cloud edge has.")),
                ])
        ),
        (
            "DetachResult",
            .object(
                "What a detach gave up.",
                [
                    .required("volume", .text("The volume's name.")),
                    .optional("unsentBytes", .count("Acknowledged writes that were given up; missing when not known.")),
                    .required("forced", .flag("True when it did not wait for the writes.")),
                    .optional(
                        "heldPoints",
                        .count("Points that home has received beyond the group's last common one: kept, and not on the disk.")),
                    .optional("point", .count("The point that the disk is at; missing where it is not known.")),
                ])
        ),
    ]

    static let requestSchemas: [(String, Schema)] = [
        (
            "VolumeCreate",
            .object(
                "A volume to make.",
                [
                    .required("name", .text("The volume's name.", .name)),
                    .required("disk", .text("The name of its disk.", .name)),
                    .optional(
                        "edge",
                        .text("The cloud edge, by identifier or name; the only paired one when left out.", .bytes(1...255))),
                    .optional(
                        "target",
                        .text(
                            "The target, which volumes of one machine share; one of its own, called like the volume, when left out.", .name)
                    ),
                    .optional("logicalUnit", .count("The logical unit number there; the lowest free one when left out.", 0...255)),
                    .optional("chap", .reference("Chap", "Generated when left out. A target that is there has them already.")),
                    .optional(
                        "allowedInitiators",
                        .list(
                            "Initiator names that may log in; all that have the secret when left out. A target that is there has them already.",
                            of: .text("An iSCSI name.", .bytes(1...223)), most: 256)),
                    .optional("policy", .reference("VolumePolicy", "The edge's own when left out.")),
                    .optional("keeping", .reference("VolumeKeeping", "No past points are kept when left out.")),
                    .optional("limits", .reference("VolumeLimits", "None when left out.")),
                    .optional("readOnly", .flag("Machines may only read it; false when left out.")),
                    .optional("removable", .flag("Machines may eject its medium and load it; false when left out.")),
                    .optional("attach", .flag("Serve it at once; true when left out.")),
                ])
        ),
        (
            "VolumeChange",
            .object(
                "What is to change of a volume, also while it is served. What is left out stays as it is.",
                [
                    .optional("policy", .reference("VolumePolicy")), .optional("keeping", .reference("VolumeKeeping")),
                    .optional(
                        "limits",
                        .reference(
                            "VolumeLimits", "All limits from now on: one that is missing in here is lifted, and an empty object lifts all.")
                    ),
                    .optional("readOnly", .flag("Machines may only read it.")),
                    .optional(
                        "writeLogSizeBytes",
                        .count(
                            "How large its write log may grow, at least 16 MiB; 0 for the edge's own size. A cloud edge takes this too.",
                            0...(1 << 44))),
                ])
        ),
        (
            "RegionChange",
            .object(
                "What is to change of one range of a volume; of the whole volume, and its default policy, without a range.",
                [
                    .optional("startBytes", .count("Where the range begins on the disk; a multiple of 4096.")),
                    .optional("sizeBytes", .count("How long it is; a multiple of 4096, or up to the end of the disk.")),
                    .optional("policy", .words("Where writes to it go; as it is when left out.", RegionChange.Policy.self)),
                    .optional(
                        "writes",
                        .words(
                            "What becomes of cloud-only writes there: kept when left out, but imaged where the policy becomes onprem.",
                            RegionChange.Writes.self)),
                    .optional("origin", .words("Who says so; the operator when left out.", VolumeRegions.Origin.self)),
                ])
        ),
        (
            "Chap",
            .object(
                "The names and secrets of CHAP.",
                [
                    .required("user", .text("The user that the initiator logs in as.", .bytes(1...255))),
                    .required("secret", .text("12 to 255 bytes.", .bytes(12...255))),
                    .optional(
                        "mutualUser", .text("The user that the target proves to be; together with mutualSecret.", .bytes(1...255))
                    ),
                    .optional("mutualSecret", .text("12 to 255 bytes, other than the secret.", .bytes(12...255))),
                ])
        ),
        (
            "AttachRequest",
            .object(
                "Where to attach.",
                [
                    .optional(
                        "edge",
                        .text("The cloud edge, by identifier or name; the only one when left out.", .bytes(1...255)))
                ])
        ),
        (
            "DetachRequest",
            .object(
                "How to detach.",
                [
                    .optional("force", .flag("Detach although writes are unsent, and lose them; false when left out.")),
                    .optional(
                        "toPoint",
                        .count("The kept point that the disk goes back to then; all that came later is gone. Of one volume only.")),
                ])
        ),
        (
            "PairingTokenCreate",
            .object(
                "A token to make.",
                [
                    .optional("validSeconds", .count("How long it may be used; 900 when left out.", 1...604_800)),
                    .optional(
                        "connect",
                        .text(
                            "host:port of the cloud edge's link, when this edge is to dial it; left out when the cloud edge dials.",
                            .bytes(3...300))),
                ])
        ),
        (
            "PairingToken",
            .object(
                "A token that lets one cloud edge join, once.",
                [.required("token", .text("The token. Keep it secret.")), .required("expiresAt", .time("When it ends."))])
        ),
        (
            "JoinRequestBody",
            .object(
                "How to join.",
                [
                    .required("token", .text("The token from the on-prem edge.", .bytes(1...8_192))),
                    .optional("name", .text("The name to be known by there; the configured one when left out.", .name)),
                    .optional(
                        "connect",
                        .text("host:port of the on-prem edge's link; the configured one when left out.", .bytes(3...300))),
                ])
        ),
    ]
}
