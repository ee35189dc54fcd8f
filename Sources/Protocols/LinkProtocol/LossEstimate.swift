/// Whether a line loses packets, from what TCP has sent and sent again. Pure; told about once a second.
///
/// Both counts fade, by a tenth each time, so that some ten seconds decide. It takes a share of `lossyShare`, and more than a few segments, to call
/// a line lossy, and a quarter of that share to take it back: losses come in bursts.
public struct LossEstimate: Sendable {
    /// The share of bytes sent again from which on a line is lossy.
    static let lossyShare = 0.002
    /// Less than this was sent again by chance: some full segments.
    static let leastBytes = 8_192.0
    private static let fading = 0.9

    private var sent = 0.0
    private var sentAgain = 0.0
    /// What is believed now.
    public private(set) var isLossy = false

    /// Nothing is known: the line is clean.
    public init() {}

    /// The share of what was sent lately that was sent again, 0 to 1; 0 while nothing was.
    public var share: Double { sent > 0 ? min(1, sentAgain / sent) : 0 }

    /// Takes in what TCP has sent and sent again since the last time, in bytes.
    public mutating func note(sentBytes: UInt64, sentAgainBytes: UInt64) {
        sent = sent * Self.fading + Double(sentBytes)
        sentAgain = sentAgain * Self.fading + Double(sentAgainBytes)
        if isLossy {
            isLossy = share >= Self.lossyShare / 4
        } else {
            isLossy = share >= Self.lossyShare && sentAgain >= Self.leastBytes
        }
    }
}
