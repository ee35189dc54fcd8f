import Blocks
import ISCSI
import NIOCore

// Who may log in, who sees which targets, and whose place a login takes.
extension StorageTargetServer {
    /// Whether an initiator may log in (RFC 7143 section 11.13.5).
    func admit(_ identity: LoginIdentity) -> LoginAdmission {
        guard !isStopped else { return .refused(.serviceUnavailable, reason: "the server stops") }
        guard let name = identity.targetName else { return .admitted(discoveryAuthentication(of: identity)) }
        guard let target = targets[name] else {
            return isReady
                ? .refused(.notFound, reason: "no such target")
                : .refused(.serviceUnavailable, reason: "targets are not loaded yet")
        }
        guard target.allows(identity.initiatorName) else {
            // The same as for a target that is not there: who may not use it does not learn that it exists.
            return .refused(.notFound, reason: "the initiator is not allowed to use \(target.description.label)")
        }
        return .admitted(target.description.chap.map { .required([$0]) } ?? .none)
    }

    private func discoveryAuthentication(of identity: LoginIdentity) -> LoginAuthentication {
        let credentials = targets.values.filter { $0.allows(identity.initiatorName) }
            .sorted { $0.description.name < $1.description.name }.compactMap(\.description.chap)
        return discovery == .required ? .required(credentials) : .accepted(credentials)
    }

    /// What SendTargets tells an initiator that has reached an address of ours.
    func discover(
        _ name: String?, by login: LoginResult, reaching address: SocketAddress?, portalGroupTag: UInt16
    ) -> [DiscoveredTarget] {
        let addresses = PortalAddresses.list(
            portals.map { ($0.address, $0.groupTag) }, reached: address, groupTag: portalGroupTag)
        return targets.values
            .filter { (name == nil || $0.description.name.lowercased() == name) && shows($0, to: login) }
            .sorted { $0.description.name < $1.description.name }
            .map { DiscoveredTarget(name: $0.description.name, alias: $0.description.alias, addresses: addresses) }
    }

    private func shows(_ target: ServedTarget, to login: LoginResult) -> Bool {
        guard target.allows(login.identity.initiatorName) else { return false }
        // In a normal session it is the session's own target that is asked for.
        if login.identity.sessionType == .normal || target.isOpen || discovery == .none { return true }
        guard let credentials = target.description.chap else { return !login.provenCredentials.isEmpty }
        return login.provenCredentials.contains(credentials)
    }

    func serves(_ target: ServedTarget) -> Bool { targets.values.contains { $0 === target } }

    /// What becomes of a login that names a session (RFC 7143 section 6.3.1): a session has one connection, which a login with
    /// the same connection identifier takes the place of.
    func continuation(of identity: LoginIdentity, tsih: UInt16, connectionIdentifier: UInt16, portalGroupTag: UInt16)
        -> LoginContinuation
    {
        let found = connections.values.first { $0.session?.tsih == tsih && $0.session?.identity == identity }
        guard let found, let session = found.session, identity.sessionType == .normal else {
            return .refused(.sessionDoesNotExist, reason: "no such session")
        }
        guard found.portalGroupTag == portalGroupTag else {
            return .refused(.cannotIncludeInSession, reason: "a session does not span portal groups")
        }
        guard session.connectionIdentifier == connectionIdentifier else {
            return .refused(.tooManyConnections, reason: "a second connection of a session whose MaxConnections is 1")
        }
        return .reinstates(session.parameters)
    }

    /// The other connection with the same session name, which a new login replaces (section 6.3.5).
    func predecessor(of identity: LoginIdentity, at portalGroupTag: UInt16, besides connection: TargetConnection)
        -> TargetConnection?
    {
        guard identity.sessionType == .normal else { return nil }
        return connections.values.first {
            $0 !== connection && $0.portalGroupTag == portalGroupTag && $0.identity == identity
        }
    }
}
