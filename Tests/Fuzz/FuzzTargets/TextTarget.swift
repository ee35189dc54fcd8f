import ISCSI
import NIOCore

/// Text keys by themselves: one text, at once and in pieces. Input: how it is cut, then the text.
public final class TextTarget: FuzzTarget {
    public static let name = "text"
    public static let dictionary = LoginTarget.dictionary

    public init() {}

    public static func seeds() -> [[UInt8]] {
        [[], LoginSamples.names, LoginSamples.operational, [TextPair("a", "")]].map { pairs in
            var buffer = ByteBuffer()
            TextKeys.write(pairs, into: &buffer)
            return [3] + Array(buffer.readableBytesView)
        }
    }

    public func run(_ input: [UInt8]) throws -> UInt64 {
        var reader = ByteReader(input)
        let cut = Int(reader.byte())
        let text = ByteBuffer(bytes: reader.rest())
        let whole = Result { () throws(TextError) in try TextKeys.parse(text) }
        var accumulator = TextAccumulator()
        var rest = text
        var pieces: Result<[TextPair], TextError>?
        while pieces == nil {
            let piece = rest.readSlice(length: min(rest.readableBytes, cut + 1)) ?? ByteBuffer()
            do throws(TextError) {
                pieces = try accumulator.add(piece, continues: rest.readableBytes > 0).map { .success($0) }
            } catch { pieces = .failure(error) }
        }
        guard whole == pieces else { throw FuzzFinding("a text in pieces has other pairs than the text at once") }
        var fingerprint = Fingerprint()
        switch whole {
        case .failure(let error): fingerprint.add(String(describing: error))
        case .success(let pairs):
            var written = ByteBuffer()
            TextKeys.write(pairs, into: &written)
            guard (try? TextKeys.parse(written)) == pairs else { throw FuzzFinding("pairs come back as others") }
            fingerprint.add(pairs.count)
            for pair in pairs { fingerprint.add(pair.key) }
            // What is sent in pieces is what was to be sent.
            var sender = TextSender()
            sender.start(pairs)
            var sent = ByteBuffer()
            while sender.isWaiting {
                let (piece, _) = sender.next(limit: cut + 1)
                sent.writeImmutableBuffer(piece)
            }
            guard sent == written else { throw FuzzFinding("a text is sent as another") }
        }
        return fingerprint.value
    }
}
