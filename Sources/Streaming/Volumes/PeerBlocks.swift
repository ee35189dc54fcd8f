import Blocks
import NIOCore

/// What one edge has of what it is sent, as far as is known, and how often that was wrong.
///
/// A wrong guess costs whoever waits a round trip. When too many are wrong, nothing is named for a while that others wait for; the while is
/// longer each time, until guesses are right again.
public final class PeerBlocks {
    /// Guesses are judged over so many blocks that were named.
    static var judgedBlocks: UInt64 { 1_024 }
    /// So many of them may be wrong.
    static var wrongBlocksMax: UInt64 { 8 }
    /// For so many blocks nothing is named then, at first and at most.
    static var pauses: ClosedRange<UInt64> { 1_024...(1 << 16) }

    /// What was guessed, and how well.
    public private(set) var statistics = SentBlocks.Statistics()
    private let table: SentBlocks
    private let salt: UInt64
    /// The statistics when the judgement began that is under way.
    private var judgedFrom = SentBlocks.Statistics()
    private var pause = pauses.lowerBound
    /// How many blocks of a pause are left.
    private var pausedBlocks: UInt64 = 0

    /// - Parameter salt: another number for each peer of the table.
    public init(table: SentBlocks, salt: UInt64) {
        self.table = table
        // An odd multiplier tells all salts apart.
        self.salt = salt &* 0x9e37_79b9_7f4a_7c15
    }

    /// The digest of a whole block; nil when it is all zeroes.
    func digest(of block: ByteBuffer) -> BlockDigest? { table.digest(of: block) }

    /// The digests of whole blocks; see `SentBlocks`.
    func digests(of data: ByteBuffer) -> [BlockDigest?] { table.digests(of: data) }

    /// Which block the peer probably has that has this digest.
    /// - Parameter isUrgent: others wait for it; then there is none while too many guesses are wrong.
    func source(of digest: BlockDigest, isUrgent: Bool) -> BlockPlace? {
        guard let place = table.find(key(digest)) else { return nil }
        guard isUrgent, pausedBlocks > 0 else { return place }
        pausedBlocks -= 1
        return nil
    }

    /// The peer has a block: it was sent it, or has sent it, or has it on a disk.
    func note(_ digest: BlockDigest, at place: BlockPlace) { table.put(key(digest), place) }

    /// The peer does not serve the volume any more, or its disk is not open: nothing is named after it.
    public func forget(_ volume: VolumeIdentifier) { table.forget(volume) }

    /// The peer was referred to so many blocks.
    func noteReferred(_ count: UInt64) {
        statistics.referredBlocks &+= count
        guard statistics.referredBlocks &- judgedFrom.referredBlocks >= Self.judgedBlocks else { return }
        judgedFrom = statistics
        if pausedBlocks == 0 { pause = Self.pauses.lowerBound }
    }

    /// The peer did not have so many blocks that it was referred to.
    func noteWrong(_ count: UInt64) {
        statistics.wrongBlocks &+= count
        guard statistics.wrongBlocks &- judgedFrom.wrongBlocks > Self.wrongBlocksMax else { return }
        judgedFrom = statistics
        // What was named before the pause began is wrong too.
        if pausedBlocks > 0 { return }
        pausedBlocks = pause
        pause = min(pause * 2, Self.pauses.upperBound)
    }

    private func key(_ digest: BlockDigest) -> UInt64 { digest.words.0 ^ salt }
}
