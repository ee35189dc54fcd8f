import Testing

@testable import EdgeConfiguration

@Suite struct NBDConfigurationTests {
    private func parse(_ nbd: String) throws(ConfigurationErrors) -> Configuration.NBD? {
        let text = "role: cloud\nname: c\nstate: /s\n" + nbd
        guard case .cloud(let cloud) = try Configuration.parse(text, file: "/etc/c.yaml").role else { return nil }
        return cloud.nbd
    }

    private func errors(_ nbd: String) -> String {
        do {
            _ = try parse(nbd)
            return ""
        } catch {
            return error.description
        }
    }

    @Test func itIsOffUnlessThereIsASection() throws {
        #expect(try parse("") == nil)
        #expect(try parse("nbd:") == Configuration.NBD())
        #expect(Configuration.NBD().listen == [NetworkAddress(host: "127.0.0.1", port: 10_809)])
    }

    @Test func everyKeyIsRead() throws {
        let nbd = try parse(
            """
            nbd:
              listen: [10.0.0.5:1, "[::1]:2"]
              allowPlain: true
              tls:
                certificate: a.pem
                key: /k.pem
                clientAuthority: ca.pem
                required: true
                anyClient: true
            """)
        let tls = Configuration.NBD.TLS(
            certificate: "/etc/a.pem", key: "/k.pem", clientAuthority: "/etc/ca.pem", isRequired: true, allowsAnyClient: true)
        let expected = Configuration.NBD(
            listen: [.init(host: "10.0.0.5", port: 1), .init(host: "::1", port: 2)], allowsPlain: true, tls: tls)
        #expect(nbd == expected)
        var configuration = Configuration.cloud(name: "c", stateDirectory: "/s")
        guard case .cloud(var cloud) = configuration.role else { return }
        cloud.nbd = expected
        configuration.role = .cloud(cloud)
        #expect(try Configuration.parse(Configuration.render(configuration), file: "/x/c.yaml") == configuration)
        #expect(configuration.exposedListeners.contains("nbd.listen 10.0.0.5:1"))
    }

    @Test func otherMachinesMustProveSomething() {
        #expect(errors("nbd:\n  listen: 0.0.0.0:10809").contains("c.yaml:5:11: nbd.listen: other machines reach 0.0.0.0:10809"))
        let tls = "nbd:\n  listen: 0.0.0.0:10809\n  tls:\n    certificate: c\n    key: k\n"
        #expect(errors(tls).contains("clientAuthority"))
        for more in ["    clientAuthority: a", "    anyClient: true", "  allowPlain: true"] { #expect(errors(tls + more) == "") }
        #expect(errors("nbd:\n  listen: 127.0.0.1:10809\n  tls:\n    certificate: c\n    key: k") == "")
        #expect(Configuration.NBD(listen: [.init(host: "10.0.0.1", port: 1)], allowsPlain: true).isOpenToAll)
        #expect(!Configuration.NBD(allowsPlain: true).isOpenToAll)
    }

    @Test func mistakesAreNamed() {
        #expect(errors("nbd:\n  lisen: x").contains("did you mean “listen”"))
        #expect(errors("nbd:\n  tls:\n    key: k").contains("nbd.tls.certificate is missing"))
        #expect(errors("nbd:\n  tls:\n    certificat: k").contains("unknown key “nbd.tls.certificat”"))
        #expect(errors("nbd:\n  listen: 127.0.0.1:3260").contains("nbd.listen: 127.0.0.1:3260 is the address of another listener"))
    }
}
