import Foundation

/// The answer of `GET /v1/volumes/{name}/points`: the points that the disk of an attached volume can be read at, or go back to.
public struct KeptPoints: Codable, Sendable, Equatable {
    /// The volume's name.
    public var volume: String
    /// How many are kept; nil when none are.
    public var keeping: Volume.Keeping?
    /// The point that the disk is at.
    public var onDisk: UInt64
    /// The points before it that are kept, oldest first.
    public var past: [PastPoint]

    public init(volume: String, keeping: Volume.Keeping? = nil, onDisk: UInt64, past: [PastPoint] = []) {
        self.volume = volume
        self.keeping = keeping
        self.onDisk = onDisk
        self.past = past
    }
}

/// A point that the disk has left, and that it can be read at or go back to.
public struct PastPoint: Codable, Sendable, Equatable {
    public var point: UInt64
    /// Until when the disk was at it.
    public var leftAt: Date
    /// What keeping it takes in the state directory.
    public var bytes: UInt64
    /// What whoever asked for the point has called it; nil for nothing.
    public var label: String?
    /// The cut of the volume's group that it is a part of; nil for none.
    public var cut: UInt64?

    public init(point: UInt64, leftAt: Date, bytes: UInt64, label: String? = nil, cut: UInt64? = nil) {
        self.point = point
        self.leftAt = leftAt
        self.bytes = bytes
        self.label = label
        self.cut = cut
    }
}
