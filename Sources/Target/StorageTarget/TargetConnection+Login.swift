import Blocks
import ISCSI
import NIOCore
import SCSI

// From the negotiation to the full feature phase, and whose place the session takes there.
extension TargetConnection {
    /// Takes the next PDU of a login.
    func negotiate(_ frame: PDUFrame) throws(PDUError) {
        guard case .loginRequest(let request) = try InitiatorPDU(frame) else { throw .malformed("a PDU before the login") }
        switch login?.receive(request) {
        case .respond(let response): write(.loginResponse(response))
        case .fail(let response, let reason):
            write(.loginResponse(response))
            fail("a login was refused, status \(response.status): \(reason)")
        case .finish(let response, let result): replace(response, result)
        case nil: throw .malformed("a login without a negotiator")
        }
    }

    /// A session with the same name ends first, with all its commands, so that none of them comes after one of ours. A login
    /// that names the session goes on with it: the logical units do not notice.
    private func replace(_ response: LoginResponse, _ result: LoginResult) {
        guard let predecessor = server.predecessor(of: result.identity, at: portalGroupTag, besides: self) else {
            return enter(response, result)
        }
        phase = .replacing
        var result = result
        if result.reinstatesConnection, !hasNexus, predecessor.session?.tsih == result.tsih, let left = predecessor.surrender() {
            (nexus, hasNexus, target, identity) = (left.nexus, true, predecessor.target, result.identity)
            // Commands that were lost with the old connection have ended with it.
            if SerialNumber.isBefore(result.cmdSN, left.expCmdSN) { result.cmdSN = left.expCmdSN }
        }
        predecessor.whenEnded { [self] in
            guard phase == .replacing else { return }
            replace(response, result)
            resume()
        }
        predecessor.closeNow()
    }

    private func enter(_ response: LoginResponse, _ result: LoginResult) {
        var response = response
        if let refusal = takePlace(result) {
            response.status = refusal
            response.transits = false
            write(.loginResponse(response))
            return fail("a login was refused, status \(refusal): no room, or the target or the session is gone")
        }
        phase = .fullFeature
        write(.loginResponse(response))
        decoder.digests = result.parameters.digests
        decoder.maximumDataByteCount = server.limits.negotiation.maxRecvDataSegmentLength
        encoder.digests = result.parameters.digests
        let (server, target, address, tag) = (server, target, channel.localAddress, portalGroupTag)
        session = TargetSession(
            result, limits: server.limits.session, unitNumber: { target?.unit($0) == nil ? nil : LogicalUnitNumber(rawValue: $0).index },
            discover: { server.discover($0, by: result, reaching: address, portalGroupTag: tag) })
        login = nil
    }

    /// Registers the session with its target and its logical units.
    private func takePlace(_ result: LoginResult) -> LoginStatus? {
        if hasNexus {
            guard target.map({ server.serves($0) }) ?? false else { return .targetRemoved }
        } else if result.reinstatesConnection {
            return .sessionDoesNotExist
        } else if result.identity.sessionType == .normal {
            // The target may have gone while the login went on.
            guard let name = result.identity.targetName, let found = server.targets[name] else { return .targetRemoved }
            let port = Self.portName(of: result.identity)
            target = found
            hasNexus = true
            for unit in found.units.values where !unit.addNexus(nexus, initiatorPortName: port, relativeTargetPort: portalGroupTag) {
                return .outOfResources
            }
        }
        identity = result.identity
        return nil
    }

    /// The name of the initiator's port (RFC 7143 section 4.4.2), to which persistent registrations belong.
    static func portName(of identity: LoginIdentity) -> String {
        InitiatorPort.name(initiatorName: identity.initiatorName, isid: identity.isid.value)
    }
}
