/// Cuts a run of bytes into pieces that a medium of sectors can do: whole sectors, at most so many, or a part of one sector.
public struct NBDBytePieces: Sendable {
    /// One piece.
    public struct Piece: Equatable, Sendable {
        /// The first sector.
        public var sector: UInt64
        /// How many sectors the piece touches.
        public var sectorCount: UInt64
        /// For a part of one sector: which bytes of it; nil for whole sectors.
        public var part: Range<Int>?
        /// How many bytes the piece has.
        public var byteCount: Int
    }

    private static let sectorBytes = Int(NBDExport.minimumBlockByteCount)

    private let maximumSectorCount: Int
    private var offset: UInt64
    private var remaining: UInt64

    /// - Parameters:
    ///   - offset: the first byte; with `byteCount` it was checked against the size of the export.
    ///   - maximumByteCount: of one piece; at least a sector.
    public init(offset: UInt64, byteCount: UInt32, maximumByteCount: Int) {
        self.offset = offset
        remaining = UInt64(byteCount)
        maximumSectorCount = max(1, maximumByteCount / Self.sectorBytes)
    }

    /// True when no piece is left.
    public var isEmpty: Bool { remaining == 0 }

    /// The next piece; nil when there is none.
    public func peek() -> Piece? {
        guard remaining > 0 else { return nil }
        let (sector, start) = offset.quotientAndRemainder(dividingBy: UInt64(Self.sectorBytes))
        let sectors = min(remaining / UInt64(Self.sectorBytes), UInt64(maximumSectorCount))
        if start == 0, sectors > 0 {
            return Piece(sector: sector, sectorCount: sectors, part: nil, byteCount: Int(sectors) * Self.sectorBytes)
        }
        let end = min(UInt64(Self.sectorBytes), start + remaining)
        return Piece(sector: sector, sectorCount: 1, part: Int(start)..<Int(end), byteCount: Int(end - start))
    }

    /// Takes the next piece.
    public mutating func next() -> Piece? {
        guard let piece = peek() else { return nil }
        offset += UInt64(piece.byteCount)
        remaining -= UInt64(piece.byteCount)
        return piece
    }
}
