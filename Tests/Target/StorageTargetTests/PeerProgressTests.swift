import NIOCore
import Testing

@testable import StorageTarget

@Suite("What an initiator does is told from what it leaves undone")
struct PeerProgressTests {
    var progress = PeerProgress(now: at(0))

    static func at(_ seconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .seconds(seconds) }

    mutating func look(_ seconds: Int64, traffic: Bool = false, data: Bool = false, outbound: Int? = nil, awaits: Bool = false) {
        progress.look(Self.at(seconds), sawTraffic: traffic, sawData: data, outboundByteCount: outbound, awaitsData: awaits)
    }

    @Test("Bytes that come end its silence")
    mutating func traffic() {
        look(10)
        let before = progress.silence(Self.at(10))
        look(20, traffic: true)
        let after = progress.silence(Self.at(25))
        #expect(before == .seconds(10) && after == .seconds(5))
    }

    @Test("So do answers that it takes while nothing is read from it, and not those that it leaves")
    mutating func slowReader() {
        for second in Int64(1)...100 { look(second, outbound: 1_000_000 - Int(second) * 1000) }
        let taking = progress.silence(Self.at(100))
        for second in Int64(101)...200 { look(second, outbound: 900_000) }
        let leaving = progress.silence(Self.at(200))
        let isFull = progress.isFull
        #expect(taking == .zero && leaving == .seconds(100) && isFull)
    }

    @Test("Data that is asked for has a time of its own, which other bytes do not stop, and which does not run while nothing is read")
    mutating func data() {
        look(1)
        for second in Int64(2)...31 { look(second, traffic: true, awaits: true) }
        let missing = progress.dataSilence(Self.at(31))
        look(32, data: true, awaits: true)
        let came = progress.dataSilence(Self.at(32))
        look(40, outbound: 5, awaits: true)
        let unread = progress.dataSilence(Self.at(40))
        look(50)
        let nothingAwaited = progress.dataSilence(Self.at(50))
        #expect(missing == .seconds(30) && came == .zero && unread == .zero && nothingAwaited == .zero)
    }
}
