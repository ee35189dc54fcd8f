import APIModels

// One description for each type of APIModels. A test encodes a value of each type with all its fields and with as few as it can,
// and holds it against its description, so that neither can change alone.

extension Schema {
    /// Every named schema of the API.
    static let named: [String: Schema] = Dictionary(
        uniqueKeysWithValues: edgeSchemas + diskSchemas + volumeSchemas + requestSchemas + groupSchemas + tunnelSchemas
            + groupRequestSchemas + cacheSchemas
            + keySchemas
            + eventSchemas
    )

    /// The name of a page of items.
    static func page(of name: String) -> String { "\(name)Page" }

    static func page(_ item: String) -> (String, Schema) {
        (
            page(of: item),
            .object(
                "A page of a list.",
                [
                    .required("items", .list("The items of this page.", of: .reference(item))),
                    .optional("next", .text("The value for “after” that gives the next page; missing on the last page.")),
                ])
        )
    }

    private static let edgeSchemas: [(String, Schema)] = [
        (
            "EdgeStatus",
            .object(
                "The edge that answers.",
                [
                    .required("name", .text("The configured name.")),
                    .required("identifier", .text("The identifier from pairing; empty on a cloud edge that was never paired.")),
                    .required("role", .words("What the edge does.", EdgeRole.self)),
                    .required("version", .text("The version of the software.")),
                    .required("startedAt", .time("When the process started.")),
                    .required("state", .words("Whether it does its work.", EdgeStatus.State.self)),
                    .optional("stateDirectory", .text("Where it keeps its state.")),
                    .required(
                        "addresses",
                        .object(
                            "Where it listens, as host:port.",
                            [
                                .optional("api", .text("The management API.")),
                                .optional("link", .text("The link between edges.")),
                                .required("iscsi", .list("The iSCSI portals.", of: .text("host:port"))),
                                .optional("nbd", .list("The NBD listeners.", of: .text("nbd://host:port or nbds://host:port"))),
                            ])),
                    .required("warnings", .list("What an operator should look at.", of: .text("One sentence."))),
                ])
        ),
        (
            "PeerEdge",
            .object(
                "An edge that is or was paired with this one.",
                [
                    .required("identifier", .text("The identifier from pairing.")), .required("name", .text("The edge's name.")),
                    .required("role", .words("What the edge does.", EdgeRole.self)),
                    .required("connected", .flag("True while its link is up.")),
                    .required("pairedAt", .time("When it was paired; at a cloud edge, when that started.")),
                    .required("revoked", .flag("True once it may not connect again.")),
                    .optional("lastSeen", .time("When it was connected last; now, while it is.")),
                    .optional("address", .text("host:port where this edge dials it; left out when it dials this one.")),
                ])
        ),
        page("PeerEdge"),
        (
            "EdgeChange",
            .object(
                "A change of a peer: what is left out stays.",
                [
                    .optional("address", .text("host:port where this edge dials the peer from now on.", .bytes(3...300))),
                    .optional("dials", .flag("True: the peer dials, and is dialled no more. Not with an address.")),
                ])
        ),
        (
            "Link",
            .object(
                "The encrypted connection to a peer.",
                [
                    .required("peer", .text("The identifier of the peer edge.")),
                    .required("state", .words("Whether frames pass.", Link.State.self)),
                    .required("connections", .count("Open connections.")),
                    .optional("roundTripMilliseconds", .number("The newest measured round trip.")),
                    .optional("baseRoundTripMilliseconds", .number("The round trip of the line without queues.")),
                    .optional("lastError", .text("Why the link last failed.")),
                    .required("traffic", .list("Bytes of each priority class since the start.", of: .reference("LinkTraffic"))),
                    .required("reconnects", .count("How many times it came up again since the start.")),
                    .optional("connectionsLost", .count("How many of its connections were lost since the start.")),
                    .optional("line", .reference("LinkLine")),
                    .required("since", .time("When it entered its state.")),
                    .required("shaping", .reference("LinkShaping")),
                    .required("ratesInForce", .reference("LinkRates")),
                    .required(
                        "congestionControls",
                        .list("What decides how fast this edge's connections may send, such as `bbr`.", of: .text("Its name."))),
                    .optional("deduplication", .reference("LinkDeduplication")),
                ])
        ),
        (
            "LinkLine",
            .object(
                "What this edge has seen of the line, and how much it keeps on its way.",
                [
                    .required("lossShare", .number("The share of bytes that TCP has sent again in the last ten seconds or so, 0 to 1.")),
                    .required("lossy", .flag("True while that is so much that what is waited for is sent twice.")),
                    .optional("bytesPerSecond", .count("What the line carries, as far as there was enough to send.")),
                    .required("windowBytes", .count("What may be on its way.")),
                    .required("inFlightBytes", .count("What is on its way.")),
                    .required("queuedBytes", .count("What waits to be sent.")),
                    .required("retransmittedBytes", .count("Bytes that TCP has sent again since the start.")),
                    .required("copiedFrames", .count("Frames that were sent on a second connection, too, since the start.")),
                ])
        ),
        (
            "LinkDeduplication",
            .object(
                "Blocks that this edge named instead of sending them, because the peer has equal ones; since the start.",
                [
                    .required("referredBytes", .count("Bytes of the blocks that were named.")),
                    .required("wrongBytes", .count("Bytes of those of them that the peer had no more, and asked for.")),
                ])
        ),
        page("Link"),
        (
            "LinkChange",
            .object(
                "What is to change of what is sent at most; the rest stays.",
                [
                    .optional("rates", .reference("LinkRates")),
                    .optional("schedule", .list("In place of the schedule.", of: .reference("LinkScheduleEntry"), most: 32)),
                    .optional(
                        "remove",
                        .list("Entries of the schedule to take out, by their times.", of: .reference("LinkSchedulePeriod"), most: 32)),
                    .optional(
                        "append", .list("Entries to put behind those of the schedule.", of: .reference("LinkScheduleEntry"), most: 32)),
                ])
        ),
        (
            "LinkSchedulePeriod",
            .object(
                "The times of an entry of a schedule.",
                [
                    .optional(
                        "days",
                        .list("The days on which it begins; all when left out.", of: .words("A day.", LinkShaping.Day.self), most: 7)),
                    .required("from", .text("When it begins, as 08:00.", .bytes(5...5))),
                    .required("until", .text("When it ends.", .bytes(5...5))),
                ])
        ),
        (
            "LinkShaping",
            .object(
                "What this edge sends at most, and when.",
                [
                    .required("rates", .reference("LinkRates")),
                    .required(
                        "schedule",
                        .list("The first entry whose time it is takes the place of the rates.", of: .reference("LinkScheduleEntry"))),
                ])
        ),
        (
            "LinkScheduleEntry",
            .object(
                "Other rates at certain times.",
                [
                    .optional(
                        "days",
                        .list("The days on which it begins; all when left out.", of: .words("A day.", LinkShaping.Day.self), most: 7)),
                    .required("from", .text("When it begins, as 08:00, in the edge's local time.", .bytes(5...5))),
                    .required("until", .text("When it ends; on the next day if that is not after its beginning.", .bytes(5...5))),
                    .required("rates", .reference("LinkRates")),
                ])
        ),
        (
            "LinkRates",
            .object(
                "Bytes a second on the line; what is left out has no limit.",
                [
                    .optional("totalBytesPerSecond", .count("Everything together.", 8192...Int64.max)),
                    .optional("demandBytesPerSecond", .count("Answers to reads, which home sends.", 8192...Int64.max)),
                    .optional("writeBehindBytesPerSecond", .count("Points, which the cloud edge sends.", 8192...Int64.max)),
                ])
        ),
        (
            "LinkHistory",
            .object(
                "What passed over a link in steps of equal length.",
                [
                    .required("peer", .text("The identifier of the peer edge.")),
                    .required("stepSeconds", .count("How long a step is.", 1...Int64.max)),
                    .required(
                        "samples", .list("Oldest first; steps of which nothing is known are left out.", of: .reference("LinkSample"))),
                ])
        ),
        (
            "LinkSample",
            .object(
                "What passed over a link in one step.",
                [
                    .required("time", .time("When the step begins.")),
                    .required("seconds", .number("How many of its seconds were recorded.")),
                    .required("upSeconds", .number("How many of them the link was up.")),
                    .optional("roundTripMilliseconds", .number("The mean of the measured round trips.")),
                    .optional("longestRoundTripMilliseconds", .number("The longest of them.")),
                    .required("retransmittedBytes", .count("Bytes that TCP had to send again, in whole segments.")),
                    .required("connections", .count("Connections at the end of the step.")),
                    .required("connectionsLost", .count("Connections that were lost.")),
                    .required("traffic", .list("Bytes of each priority class of which something passed.", of: .reference("LinkTraffic"))),
                ])
        ),
        (
            "LinkTraffic",
            .object(
                "Bytes of one priority class.",
                [
                    .required("class", .text("The priority class.")), .required("sentBytes", .count("Sent, before compression.")),
                    .required("sentWireBytes", .count("Sent, after compression and framing.")),
                    .required("receivedBytes", .count("Received, after decompression.")),
                    .required("receivedWireBytes", .count("Received, before decompression.")),
                ])
        ),
    ]

    private static let diskSchemas: [(String, Schema)] = [
        (
            "Disk",
            .object(
                "Storage that an on-prem edge owns.",
                [
                    .required("name", .text("The disk's name.")), .required("path", .text("Its path on the on-prem edge.")),
                    .required("kind", .words("What lies at the path.", Disk.Kind.self)),
                    .required("sizeBytes", .count("Its size.")),
                    .required("state", .words("Whether it can be used.", Disk.State.self)),
                    .required("readOnly", .flag("True when volumes of it refuse writes.")),
                    .optional("usedBy", .text("The volume that uses it.")),
                    .optional("message", .text("What is wrong and what to do.")),
                ])
        ),
        page("Disk"),
        (
            "DiskCreate",
            .object(
                "A disk to add.",
                [
                    .required("name", .text("The disk's name.", .name)),
                    .required("path", .text("Absolute path of a file or block device.", .absolutePath)),
                    .optional("readOnly", .flag("Refuse writes; false when left out.")),
                ])
        ),
        (
            "DiskChange",
            .object(
                "What is to change of a disk, also while it is served.",
                [
                    .required(
                        "sizeBytes",
                        .count(
                            "The size that a file is to have: a multiple of 512, not less than it has. What is new reads as zeroes.",
                            512...(1 << 60)))
                ])
        ),
    ]

    private static let eventSchemas: [(String, Schema)] = [
        (
            "Event",
            .object(
                "Something that happened.",
                [
                    .required("sequence", .count("Grows with each event.")), .required("time", .time("When it happened.")),
                    .required("kind", .text("What happened, for example link.up.")),
                    .optional("subject", .text("What it happened to, for example volume/mail.")),
                    .required("message", .text("One sentence.")),
                    .required("severity", .words("How much an operator should care.", Event.Severity.self)),
                ])
        ),
        page("Event"),
        (
            "Health",
            .object(
                "Whether the edge does its work.",
                [
                    .required("healthy", .flag("True with 200, false with 503.")),
                    .required("state", .words("The edge's state.", EdgeStatus.State.self)),
                    .required("problems", .list("Why it is not healthy.", of: .text("One sentence."))),
                ])
        ),
        (
            "Problem",
            .object(
                "An error (RFC 9457).",
                [
                    .required("type", .text("The kind of problem, as a URI.")), .required("title", .text("The kind of problem.")),
                    .required("status", .count("The HTTP status.", 400...599)),
                    .optional("detail", .text("What went wrong this time.")),
                    .optional("instance", .text("The path of the request.")),
                    .required("code", .text("A stable word for programs.")),
                    .optional("action", .text("What to do about it.")),
                    .optional("errors", .list("The wrong parts of the request.", of: .reference("InvalidField"))),
                ])
        ),
        (
            "InvalidField",
            .object(
                "A wrong part of a request.",
                [
                    .required("field", .text("The field's path or the parameter's name.")),
                    .required("message", .text("What is wrong.")),
                ])
        ),
        (
            "APIToken",
            .object(
                "A bearer token, without its value.",
                [
                    .required("name", .text("The token's name.")), .required("fingerprint", .text("The begin of its SHA-256.")),
                    .optional("createdAt", .time("When it was made.")),
                ])
        ),
    ]
}
