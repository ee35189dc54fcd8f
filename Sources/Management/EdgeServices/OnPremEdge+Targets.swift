import APIModels
import EdgeConfiguration
import ManagementAPI
import StateStore

/// Which target a volume belongs to, and under which number (T4).
extension OnPremEdge {
    /// The numbers that a volume may have: those of one byte, which every initiator knows.
    static let logicalUnitNumbers = 0...255

    /// Where a new volume goes.
    struct Place {
        let target: String
        let logicalUnit: Int
        /// The target, when it is not there yet.
        let newTarget: TargetRecord?
    }

    /// The place of a new volume: in the target that the request names, or in one of its own.
    func place(for request: VolumeCreate) throws -> Place {
        let name = request.target ?? request.name
        if let problem = NameRule.problem(name) { throw APIError.invalid("target", "\(problem)") }
        if let wanted = request.logicalUnit, !Self.logicalUnitNumbers.contains(wanted) {
            throw APIError.invalid(
                "logicalUnit", "it is between \(Self.logicalUnitNumbers.lowerBound) and \(Self.logicalUnitNumbers.upperBound)")
        }
        guard try store.target(name) != nil else {
            let chap = try Self.checkedCredentials(request, target: name)
            let target = TargetRecord(
                name: name, iqn: Self.targetName(name), chapUser: chap.user, chapSecret: chap.secret, mutualChapUser: chap.mutualUser,
                mutualChapSecret: chap.mutualSecret, allowedInitiators: (request.allowedInitiators ?? []).map { $0.lowercased() })
            return Place(target: name, logicalUnit: request.logicalUnit ?? 0, newTarget: target)
        }
        return try placeInTarget(name, request)
    }

    private func placeInTarget(_ name: String, _ request: VolumeCreate) throws -> Place {
        let volumes = try store.volumes(ofTarget: name)
        // Nobody who gives no target means to hand the disk to whoever logs in to another volume's.
        guard request.target != nil else {
            throw APIError.conflict(
                "target_exists", "The target exists", detail: "there is a target \(name), with the volume \(volumes.first?.name ?? "")",
                action: "name the target to put the volume into it (`--target \(name)`), or name another")
        }
        for (field, isGiven) in [("chap", request.chap != nil), ("allowedInitiators", request.allowedInitiators != nil)] where isGiven {
            throw APIError.invalid(field, "the target \(name) is there already, and its volumes share what it was made with: leave it out")
        }
        let taken = Set(volumes.map(\.logicalUnit))
        guard let number = request.logicalUnit ?? Self.logicalUnitNumbers.first(where: { !taken.contains($0) }) else {
            throw Self.unitInUse("the target \(name) has all the logical units that it can have")
        }
        return Place(target: name, logicalUnit: number, newTarget: nil)
    }

    static func unitInUse(_ text: String) -> APIError {
        .conflict("logical_unit_in_use", "The logical unit number is in use", detail: text, action: "choose another, or leave it out")
    }
}
