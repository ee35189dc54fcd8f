import APIModels
import Blocks
import EdgeConfiguration
import ManagementAPI
import SecureCache

/// What is wrong with a way to divide the cache, in words.
extension Problem {
    /// - Parameter bytesWithoutRoom: how much of the cache its file system has no room for.
    /// - Parameter name: what a volume is called.
    init(
        dividing error: CacheError, from before: CacheDivision, to division: CacheDivision, bytesWithoutRoom: UInt64,
        name: (VolumeIdentifier) -> String
    ) {
        var detail = "\(error)"
        if case .division(let error) = error {
            detail = Problem.text(of: error, name)
            switch error {
            case .tooMuchPromised where bytesWithoutRoom > 0, .partitionsTooLarge where bytesWithoutRoom > 0:
                detail += ". For \(ByteSize.text(bytesWithoutRoom)) of the cache its file system has no room"
            default: break
            }
            if case .noPartition(let partition) = error {
                detail = Self.missing(partition, before, users: division.shares.filter { $0.value.partition == partition }.keys.map(name))
            }
        }
        self.init(
            status: 409, code: "cache_division", title: "The cache can't be divided like that", detail: detail,
            action: "It stays divided as it is; `causeway cache show` and `causeway volume cache show` say how.")
    }

    /// It can't be removed, or was never there.
    private static func missing(_ partition: String, _ before: CacheDivision, users: [String]) -> String {
        if before.partitions[partition] != nil {
            let volumes = users.sorted().map { "“\($0)”" }.joined(separator: ", ")
            return "partition “\(partition)” is still used by \(volumes): choose another one there first (`causeway volume cache set`)"
        }
        if partition == CachePartition.sharedName {
            return "“\(partition)” is no partition, but the part outside of all: choose that one by an empty name (`--partition \"\"`)"
        }
        let others = before.partitions.keys.sorted().map { "“\($0)”" }.joined(separator: ", ")
        return "there is no partition “\(partition)”"
            + (others.isEmpty ? "; make it first (`causeway cache partition`)" : "; there are \(others)")
    }

    init(keeping error: any Error) {
        self.init(
            status: 507, code: "state_directory", title: "The division of the cache can't be kept", detail: "\(error)",
            action: "It stays divided as it is. Make room in the state directory, or mend its file system, and try again.")
    }

    static func text(of error: CacheDivisionError, _ name: (VolumeIdentifier) -> String) -> String {
        let size = ByteSize.text
        switch error {
        case .noPartition(let partition): return "there is no partition “\(partition)”"
        case .partitionTooSmall(let partition, let needed): return "partition “\(partition)” must have at least \(size(needed))"
        case .tooManyPools(let max): return "partitions, and volumes with a guarantee or a maximum, can't be more than \(max - 1) together"
        case .tooManyPins(let volume, let max):
            return "volume “\(name(volume))” would have more than \(max) pinned ranges: unpin some, or pin fewer and longer ones"
        case .badPin(let volume): return "a range of volume “\(name(volume))” is empty, or behind the end of any disk"
        case .maximumTooSmall(let volume, let needed):
            return "the maximum of volume “\(name(volume))” must be at least \(size(needed)), or 0 for none"
        case .guaranteeOverMaximum(let volume):
            return "volume “\(name(volume))” can't be guaranteed more than its maximum: change both in one go"
        case .pinsOverMaximum(let volume, let pinned, let max):
            return
                "volume “\(name(volume))” would have \(size(pinned)) pinned, and its maximum has room for \(size(max)) of that: give it a "
                + "larger maximum, or pin less"
        case .tooMuchPromised(let partition, let promised, let max):
            return "guarantees and pins in \(partition.map { "partition “\($0)”" } ?? "the shared part of the cache") would take "
                + "\(size(promised)), and it can keep \(size(max)): promise less, or make it larger. What is pinned takes a third more than it is"
        case .partitionsTooLarge(let byteCount, let max):
            return
                "the partitions would have \(size(byteCount)) together, and the cache has room for \(size(max)): choose smaller ones, or "
                + "make the cache larger (`causeway cache resize`)"
        }
    }
}
