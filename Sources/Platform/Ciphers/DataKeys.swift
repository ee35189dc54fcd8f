/// The number of a volume's data key: 1 is the first of an attachment, each rotation takes the next.
public typealias KeyGeneration = UInt64

/// The data keys of one volume that are not destroyed: the newest seals what is written, all of them open what is there.
public struct DataKeys: Sendable {
    /// The generation whose key seals.
    public let newest: KeyGeneration
    /// The key that seals.
    public let newestKey: SecretKey
    private let older: [KeyGeneration: SecretKey]

    /// One key only.
    public init(_ key: SecretKey, generation: KeyGeneration = 1) {
        newest = generation
        newestKey = key
        older = [:]
    }

    /// Several keys; nil when there is none.
    public init?(_ keys: [KeyGeneration: SecretKey]) {
        guard let newest = keys.max(by: { $0.key < $1.key }) else { return nil }
        self.newest = newest.key
        newestKey = newest.value
        older = keys.filter { $0.key != newest.key }
    }

    /// The key of a generation; nil when it is not among these.
    public subscript(generation: KeyGeneration) -> SecretKey? { generation == newest ? newestKey : older[generation] }

    /// All of them, the newest first.
    public var generations: [KeyGeneration] { [newest] + older.keys.sorted(by: >) }
}
