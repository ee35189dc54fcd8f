import Blocks

extension SecureCache {
    /// How many blocks with data the cache holds of a volume; zeroes count nothing.
    public func blocksHeld(of identifier: VolumeIdentifier) -> UInt64 { UInt64(index[identifier]?.blocks.count ?? 0) }
}
