import APIModels

extension Schema {
    static let groupSchemas: [(String, Schema)] = [
        page("VolumeGroup"),
        (
            "VolumeGroup",
            .object(
                "Volumes of one machine that have their points together: each point spans all of them at one instant.",
                [
                    .required("name", .text("The group's name.")), .required("identifier", .text("Random and permanent.")),
                    .required(
                        "point",
                        .count("The number of the last point: at a cloud edge of what is sealed, at home of what all disks have gone to.")),
                    .required("applied", .flag("True when every attached disk is on its part of the point, at home.")),
                    .required("members", .list("The volumes.", of: .reference("GroupMember"))),
                    .required("policy", .reference("VolumePolicy", "For all volumes together.")),
                    .optional("cut", .reference("GroupCut")),
                ])
        ),
        (
            "GroupMember",
            .object(
                "Where one volume stands.",
                [
                    .required("volume", .text("The volume's name.")),
                    .optional("point", .count("Its own point in the group's last point; missing when it has no part in it.")),
                    .required("received", .count("Its last point that is durable at home.")),
                    .required("applied", .count("Its last point that is on the disk.")),
                ])
        ),
        (
            "GroupCut",
            .object(
                "How long the cloud edge did nothing else while it made the points.",
                [
                    .required("count", .count("Points made since the start.")), .required("lastSeconds", .number("The last one.")),
                    .required("longestSeconds", .number("The longest one.")),
                ])
        ),
        (
            "GroupDetachResult",
            .object(
                "What a detach of a group gave up.",
                [
                    .required("group", .text("The group's name.")),
                    .required("volumes", .list("Each volume that was attached.", of: .reference("DetachResult"))),
                    .required("forced", .flag("True when it did not wait for the writes: the disks are at their last common point.")),
                ])
        ),
        (
            "GroupSealResult",
            .object(
                "A sealed point of a group.",
                [
                    .required("group", .text("The group's name.")), .required("point", .count("The point's number.")),
                    .required("members", .list("The volumes' own points.", of: .reference("GroupSealMember"))),
                    .required("state", .words("How far all of it had come.", SealResult.State.self)),
                ])
        ),
        (
            "Bracket",
            .object(
                "A bracket round the seal of a volume or group.",
                [
                    .required("name", .text("The name of the volume or group.")),
                    .required("state", .words("Where it is.", Bracket.State.self)),
                    .required("label", .text("What the point is called; may be empty.")),
                    .optional("point", .count("The number of the point, of the volume or of the group.")),
                    .optional(
                        "consistency",
                        .words("Crash when the time was over before the seal, application when not.", Bracket.Consistency.self)),
                    .optional("remainingSeconds", .number("When an open one ends by itself.")),
                    .optional("message", .text("Why there is no point.")),
                ])
        ),
        (
            "GroupSealMember",
            .object(
                "One volume's part.",
                [.required("volume", .text("The volume's name.")), .required("point", .count("The volume's own point."))])
        ),
    ]

    static let groupRequestSchemas: [(String, Schema)] = [
        (
            "GroupCreate",
            .object(
                "A group to make.",
                [
                    .required("name", .text("The group's name.", .name)),
                    .required("volumes", .list("Its volumes, by name.", of: .text("A volume.", .name), most: 16)),
                    .optional("policy", .reference("VolumePolicy", "A point each 5 s or 64 MiB when left out.")),
                ])
        ),
        (
            "BracketCreate",
            .object(
                "A bracket to begin.",
                [
                    .optional("label", .text("What the point is to be called.", .bytes(0...64))),
                    .optional(
                        "timeoutSeconds",
                        .count(
                            "When it ends by itself, with a point that is only crash-consistent; 30 when left out.",
                            1...Int64(BracketCreate.longestTimeoutSeconds))),
                ])
        ),
        (
            "GroupChange",
            .object(
                "What is to change of a group. What is left out stays as it is.",
                [
                    .optional("volumes", .list("All its volumes from now on, by name.", of: .text("A volume.", .name), most: 16)),
                    .optional("policy", .reference("VolumePolicy")),
                ])
        ),
    ]
}
