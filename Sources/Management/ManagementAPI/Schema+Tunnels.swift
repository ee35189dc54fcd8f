import APIModels

extension Schema {
    static let tunnelSchemas: [(String, Schema)] = [
        (
            "Tunnel",
            .object(
                "A TCP service that is reached over the link.",
                [
                    .required("name", .text("Its name.")),
                    .optional("edge", .text("The identifier of the cloud edge; left out at that edge.")),
                    .required("direction", .words("Which way connections are made.", Tunnel.Direction.self)),
                    .optional("listen", .text("host:port where connections are taken; left out at a cloud edge that connects.")),
                    .optional("connect", .text("host:port of the service; left out at a cloud edge that listens.")),
                    .required("precedence", .words("When its bytes go.", Tunnel.Precedence.self)),
                    .required("allow", .list("The networks from which clients may come.", of: .text("A network."))),
                    .required("state", .words("What the edge that answers does for it.", Tunnel.State.self)),
                    .optional("message", .text("What is wrong.")),
                    .required("connections", .count("Connections that are open.")),
                    .required("connectionsTotal", .count("Connections that were opened.")),
                    .required("refusedTotal", .count("Connections that were turned away.")),
                    .required("sentBytes", .count("Bytes that this edge has sent through it.")),
                    .required("receivedBytes", .count("Bytes that came out of it here.")),
                ])
        ),
        page("Tunnel"),
        (
            "TunnelCreate",
            .object(
                "A tunnel to make.",
                [
                    .required("name", .text("A name for it.", .name)),
                    .required("edge", .text("The cloud edge, by identifier or name.", .bytes(1...64))),
                    .optional(
                        "direction",
                        .words("toHome: the cloud edge listens; toCloud: home does. toHome when left out.", Tunnel.Direction.self)
                    ),
                    .required("listen", .text("host:port where connections are taken.", .bytes(3...300))),
                    .required("connect", .text("host:port of the service, as the other edge reaches it.", .bytes(3...300))),
                    .optional(
                        "precedence",
                        .words(
                            "interactive: ahead of points and long reads; bulk: behind all else. interactive when left out.",
                            Tunnel.Precedence.self)),
                    .optional(
                        "allow",
                        .list(
                            "The networks from which clients may come, like 10.0.0.0/8; needed unless listen is a loopback address.",
                            of: .text("A network.", .bytes(2...64)))),
                ])
        ),
    ]
}
