import Blocks
import NIOCore
import SCSI

extension StorageTargetServer {
    /// The logical units that an EXTENDED COPY of a session may reach: those of the targets where the same initiator has a
    /// session.
    ///
    /// A session is what an initiator has when it has proved what its target asks for (CHAP), so a copy reaches nothing that
    /// the initiator could not read by itself. Names are claimed and not proved, so the address counts too: another machine
    /// that logs in to a target of its own under our initiator's name gets nothing by it.
    func copyPeers(of nexus: NexusIdentifier) -> [LogicalUnitCopyPeer] {
        guard let own = connections.values.first(where: { $0.nexus == nexus }), let identity = own.identity,
            let address = own.channel.remoteAddress?.ipAddress
        else { return [] }
        let sessions = connections.values.filter {
            $0.session != nil && $0.identity?.initiatorName == identity.initiatorName
                && $0.channel.remoteAddress?.ipAddress == address
        }
        // Where there are several, the session of the same initiator port speaks for the initiator.
        let sorted = sessions.sorted { rank($0, own) < rank($1, own) }
        var peers: [LogicalUnitCopyPeer] = []
        for session in sorted {
            for unit in session.target?.units.values.map({ $0 }) ?? [] where !peers.contains(where: { $0.unit === unit }) {
                peers.append(LogicalUnitCopyPeer(unit: unit, nexus: session.nexus))
            }
        }
        return peers
    }

    private func rank(_ session: TargetConnection, _ own: TargetConnection) -> (Int, UInt64) {
        (session === own ? 0 : session.identity?.isid == own.identity?.isid ? 1 : 2, session.nexus.rawValue)
    }
}
