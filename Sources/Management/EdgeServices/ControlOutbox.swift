import APIModels
import DequeModule
import LinkProtocol
import NIOCore

/// Answers to calls, and notices, that the link has no room for at the moment: they leave in their order when it has. Whoever called waits for an
/// answer until its time is over, so none is thrown away while there is memory for it.
struct ControlOutbox {
    /// What may wait, in bytes. One more message is lost: whoever called hears that there was no answer in time.
    static let byteCountMax = 4 * LinkLimits.controlMessageBytes

    private var messages = Deque<LinkMessage>()
    private var byteCount = 0

    /// Hands a message to the link, or keeps it.
    /// - Parameter hand: gives a message to the link; false when that takes no more, and will say when it does.
    /// - Returns: false when the message is lost.
    mutating func send(_ message: LinkMessage, via hand: (LinkMessage) -> Bool) -> Bool {
        if messages.isEmpty, hand(message) { return true }
        // What the link never takes must not stand before the others.
        guard message.encodedBytes <= LinkLimits.controlMessageBytes, byteCount + message.encodedBytes <= Self.byteCountMax else {
            return false
        }
        byteCount += message.encodedBytes
        messages.append(message)
        return true
    }

    /// The link takes messages again.
    mutating func run(via hand: (LinkMessage) -> Bool) {
        while let message = messages.first, hand(message) {
            messages.removeFirst()
            byteCount -= message.encodedBytes
        }
    }

    /// A new session: what waited belongs to the one before.
    mutating func reset() { self = ControlOutbox() }
}

extension ControlAnswer {
    /// This answer, or in place of one that the link can't carry the problem that it is.
    func fitting(method: String) -> ControlAnswer {
        let byteCountMax = LinkLimits.controlMessageBytes - Self.headerBytesMax
        guard body.readableBytes > byteCountMax else { return self }
        let problem = Problem(
            status: 500, code: "answer_too_long", title: "The answer is longer than the link carries",
            detail: "\(method) has an answer of \(body.readableBytes) bytes, and the link carries \(byteCountMax)",
            action: "have fewer of what it lists, volumes and tunnels with their networks")
        return ControlAnswer(status: UInt16(clamping: problem.status), body: (try? ControlCoding.encode(problem)) ?? ByteBuffer())
    }

    /// More than what a reply has before its body.
    private static let headerBytesMax = 64
}
