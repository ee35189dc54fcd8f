import Yams

extension ConfigurationBuilder {
    /// The `nbd` section.
    func nbd(_ section: Section) -> Configuration.NBD {
        var nbd = Configuration.NBD()
        if let node = section.values["listen"] { nbd.listen = addresses(node, key: "nbd.listen") ?? nbd.listen }
        nbd.allowsPlain = section.flag("allowPlain", default: false)
        if let node = section.values["tls"], let tls = reader.section(node, "nbd.tls", role: "cloud") {
            let certificate = path(tls, "certificate", required: "name the PEM file of the certificate chain")
            let key = path(tls, "key", required: "name the PEM file of the certificate's private key")
            nbd.tls = .init(
                certificate: certificate ?? "", key: key ?? "", clientAuthority: path(tls, "clientAuthority"),
                isRequired: tls.flag("required", default: false), allowsAnyClient: tls.flag("anyClient", default: false))
        }
        checkWhoComesIn(nbd, section)
        return nbd
    }

    /// Other machines must prove something, or the file must say that they need not.
    private func checkWhoComesIn(_ nbd: Configuration.NBD, _ section: Section) {
        guard let exposed = nbd.listen.first(where: { !$0.isLoopback }), !nbd.allowsPlain else { return }
        guard let tls = nbd.tls else {
            return section.fail(
                "listen", "other machines reach \(exposed), and NBD has no login: all who do could use every volume",
                hint: "configure nbd.tls with a clientAuthority, or write allowPlain: true if the network itself is trusted")
        }
        if tls.clientAuthority == nil, !tls.allowsAnyClient {
            section.fail(
                "tls", "other machines reach \(exposed), and without clientAuthority a client proves nothing",
                hint: "name the authority of the clients' certificates, or write anyClient: true if the network itself is trusted")
        }
    }
}
