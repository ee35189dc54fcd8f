/// An algorithm with the effort that it makes.
public enum CompressionMethod: Int, Sendable, CaseIterable {
    case lz4
    case zstandard1
    case zstandard3
    case zstandard5

    /// How its output is opened.
    public var algorithm: CompressionAlgorithm { self == .lz4 ? .lz4 : .zstandard }

    /// Zstandard's level. On pieces of 16 KiB the levels between and above are hardly denser than the next one below.
    var zstandardLevel: Int32 {
        switch self {
        case .lz4, .zstandard1: 1
        case .zstandard3: 3
        case .zstandard5: 5
        }
    }
}
