import Blocks
import NIOCore
import Testing

@testable import Volumes

/// Brackets round seals, and what the points say of them.
@Suite struct PointBracketTests {
    private let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
    private var bracket: PointBracket { PointBracket(label: "nightly", deadline: start + .seconds(30)) }

    @Test("sealed in time the point is application-consistent, as long as the epoch is closed in time too")
    func inTime() throws {
        var bracket = bracket
        let sealed = bracket.seal(now: start + .seconds(29))
        let seal = try #require(sealed)
        #expect(seal.attributes(at: start + .seconds(29)) == PointAttributes(consistency: .application, label: "nightly"))
        #expect(seal.attributes(at: start + .seconds(30)) == PointAttributes(consistency: .crash, label: "nightly"))
        let again = bracket.seal(now: start + .seconds(29))
        let (hasEnded, expired) = (bracket.end(), bracket.expire(now: start + .seconds(31)))
        #expect(again == nil && !hasEnded && expired == nil, "once")
        bracket.finished(.success((5, .application)))
        #expect(bracket.state == .sealed(5, .application))
    }

    @Test("when the time is over it ends by itself, and its point is crash-consistent")
    func expiry() throws {
        var bracket = bracket
        let (early, late) = (bracket.expire(now: start + .milliseconds(29_999)), bracket.seal(now: start + .seconds(30)))
        #expect(early == nil && late == nil, "too late, even before it has been noticed")
        let expired = bracket.expire(now: start + .seconds(30))
        let seal = try #require(expired)
        #expect(seal.attributes(at: start) == PointAttributes(consistency: .crash, label: "nightly"))
        bracket.finished(.success((6, .crash)))
        #expect(bracket.state == .sealed(6, .crash))
    }

    @Test("it can be ended without a point, and a seal that fails leaves none")
    func withoutPoint() {
        var bracket = bracket
        let hasEnded = bracket.end()
        let seals = [bracket.seal(now: start), bracket.expire(now: start + .seconds(60))]
        #expect(hasEnded && seals == [nil, nil])
        var other = self.bracket
        _ = other.seal(now: start)
        other.finished(.failure(.stopped("gone")))
        guard case .ended = other.state else {
            Issue.record("\(other.state)")
            return
        }
    }

    @Test("the mark goes home with the point, also where nothing was written")
    func mark() throws {
        let bench = try VolumeBench(sectorCount: 2_048)
        bench.connect()
        var point: PointNumber?
        bench.volume.seal(carrying: PointSeal(label: "nightly", isAtRestUntil: .distantFuture), until: .sealed) { point = try? $0.get() }
        bench.scheduler.runUntilIdle()
        #expect(point == 1)
        let mark = PointAttributes(consistency: .application, label: "nightly")
        #expect(bench.sent.contains(.pointAttributes(volume: bench.identifier, point: 1, attributes: mark)))
        // A plain point says nothing.
        bench.write(block: 1)
        bench.volume.seal(until: .sealed) { _ in }
        bench.scheduler.runUntilIdle()
        #expect(bench.pointsBegun == [1, 2])
        #expect(!bench.sent.contains { if case .pointAttributes(_, 2, _) = $0 { true } else { false } })
    }
}
