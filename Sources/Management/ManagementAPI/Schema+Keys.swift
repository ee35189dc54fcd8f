import APIModels

extension Schema {
    /// What keys look like.
    static let keySchemas: [(String, Schema)] = [
        page("DataKey"),
        (
            "DataKey",
            .object(
                "One generation of a volume's data key; the key itself is not told.",
                [
                    .required("volume", .text("The volume's name.")),
                    .required("identifier", .text("The identifier of the attachment, 32 hexadecimal digits.")),
                    .required("generation", .count("1 for the first key of an attachment; each rotation makes the next.")),
                    .required("state", .words("Where it is in its life.", DataKey.State.self)),
                    .required("madeAt", .time("When it was made.")),
                    .optional("destroyedAt", .time("When it was destroyed.")),
                ])
        ),
        (
            "MasterKey",
            .object(
                "The key that wraps all others of an on-prem edge; the key itself is not told.",
                [
                    .optional("madeAt", .time("When it was made; missing when that was not noted.")),
                    .required("wrappedKeys", .count("How many data keys it wraps.")),
                ])
        ),
        (
            "KeyRotation",
            .object(
                "A new data key.",
                [
                    .required("volume", .text("The volume's name.")), .required("generation", .count("The generation of the new key.")),
                    .required("inForce", .flag("True when the cloud edge seals what is written under it.")),
                ])
        ),
        (
            "ShredRequest",
            .object(
                "How to shred.",
                [.optional("force", .flag("Shred although writes are not home or the cloud edge does not answer, and lose them."))])
        ),
        (
            "ShredResult",
            .object(
                "What a shred has done.",
                [
                    .required("volume", .text("The volume's name.")),
                    .required("destroyedGenerations", .list("The keys that were destroyed now.", of: .count("A generation."))),
                    .optional(
                        "edgeTold",
                        .flag("True when the cloud edge has let go of its copies; missing when no edge served the volume.")),
                    .optional("unsentBytes", .count("Writes that were given up; missing when forced and not known.")),
                ])
        ),
    ]
}
