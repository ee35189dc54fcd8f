import EdgeConfiguration
import Foundation
import Link
import NIOCore
import NetworkBlockServer
import StorageTarget

// The NBD front end of the cloud edge: the same logical units as the iSCSI targets have.
extension CloudPlane {
    /// Exports a volume by its name. Who may use the target by its name may use the export with a certificate of that name.
    func exportByNBD(_ entry: Served) {
        guard let networkBlock, entry.isExported else { return }
        let identifier = entry.volume.identifier.description
        let allowed = entry.grant.allowedInitiators.map { $0.lowercased() }
        do {
            try networkBlock.addExport(
                NetworkBlockExport(
                    name: entry.grant.name, label: identifier, unit: entry.unit, allowedClients: allowed.isEmpty ? nil : Set(allowed)))
        } catch {
            recorder.record(
                "nbd.refused", subject: entry.grant.name, logSubject: identifier, severity: .error,
                "the volume can't be served over NBD: \(error)")
        }
    }

    /// Stops serving; completes when no request of a machine can touch a volume any more.
    func stopFrontEnds(completion: @escaping () -> Void) {
        let latch = Countdown(2, completion: completion)
        target.stop { latch.arrive() }
        if let networkBlock { networkBlock.stop { latch.arrive() } } else { latch.arrive() }
    }
}

extension CloudEdge {
    /// Who comes in how, as the configuration says.
    static func networkBlockSecurity(_ nbd: Configuration.NBD) throws -> NetworkBlockSecurity {
        var tls: NetworkBlockTLS?
        if let configured = nbd.tls {
            func text(_ path: String, _ key: String) throws -> String {
                do { return try String(contentsOfFile: path, encoding: .utf8) } catch {
                    throw EdgeFailure(.configuration, "nbd.tls.\(key): \(path) can't be read: \(error.localizedDescription)")
                }
            }
            let chain = try text(configured.certificate, "certificate")
            let key = try text(configured.key, "key")
            let authority = try configured.clientAuthority.map { try text($0, "clientAuthority") }
            do {
                tls = try NetworkBlockTLS(certificateChainPEM: chain, privateKeyPEM: key, clientAuthorityPEM: authority)
            } catch {
                throw EdgeFailure(.configuration, "nbd.tls: the certificate, its key and the client authority can't be used: \(error)")
            }
        }
        return NetworkBlockSecurity(tls: tls, requiresTLS: nbd.tls?.isRequired ?? false, allowsPlain: nbd.allowsPlain)
    }

    /// Listens for NBD clients, and says so; loudly when anyone may come.
    func listenForNBD(_ nbd: Configuration.NBD, _ plane: LoopConfined<CloudPlane>) async throws {
        for address in nbd.listen {
            do {
                let bound = try await plane.eventLoop.flatSubmit {
                    plane.future { plane in
                        plane.networkBlock?.listen(host: address.host, port: Int(address.port))
                            ?? plane.eventLoop.makeFailedFuture(NetworkBlockServerError.stopped)
                    }
                }.get()
                // Clients here go plain where they may; those of other machines are told to use TLS where it is offered.
                let isPlain = nbd.tls == nil || (address.isLoopback && nbd.tls?.isRequired == false)
                networkBlockAddresses.append("\(isPlain ? "nbd" : "nbds")://\(bound.hostAndPort)")
            } catch {
                throw EdgeFailure(.unavailable, "nbd.listen: can't listen at \(address): \(NetworkFailure(error))")
            }
        }
        environment.recorder.record("nbd.listening", "listening for NBD clients at \(networkBlockAddresses.joined(separator: ", "))")
        if nbd.isOpenToAll {
            let warning = "NBD has no login: any machine that reaches nbd.listen can read and write every volume of this edge"
            warnings.append(warning)
            environment.recorder.record("nbd.open", severity: .warning, warning)
        }
    }
}
