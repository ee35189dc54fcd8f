extension Configuration {
    /// `nbd`: the NBD front end of a cloud edge. NBD has no login, so whom it lets in is decided here.
    public struct NBD: Sendable, Equatable {
        /// `nbd.tls`: how the front end proves itself, and who must prove what to it.
        public struct TLS: Sendable, Equatable {
            /// The file of the certificate chain, in PEM.
            public var certificate: String
            /// The file of its private key, in PEM.
            public var key: String
            /// The file of the authority of the certificates that clients must show, in PEM; nil when they need none.
            public var clientAuthority: String?
            /// Clients on this machine must use TLS too.
            public var isRequired: Bool
            /// Clients of other machines may come without a certificate.
            public var allowsAnyClient: Bool

            public init(
                certificate: String, key: String, clientAuthority: String? = nil, isRequired: Bool = false,
                allowsAnyClient: Bool = false
            ) {
                self.certificate = certificate
                self.key = key
                self.clientAuthority = clientAuthority
                self.isRequired = isRequired
                self.allowsAnyClient = allowsAnyClient
            }
        }

        /// `nbd.listen`
        public var listen: [NetworkAddress]
        /// Clients of other machines may come without TLS, and prove nothing.
        public var allowsPlain: Bool
        /// Nil when TLS is not offered.
        public var tls: TLS?

        public init(
            listen: [NetworkAddress] = [.init(host: "127.0.0.1", port: 10_809)], allowsPlain: Bool = false, tls: TLS? = nil
        ) {
            self.listen = listen
            self.allowsPlain = allowsPlain
            self.tls = tls
        }

        /// True when a client of another machine that proves nothing can use every volume.
        public var isOpenToAll: Bool {
            !listen.allSatisfy(\.isLoopback) && (allowsPlain || (tls != nil && tls?.clientAuthority == nil))
        }
    }
}
