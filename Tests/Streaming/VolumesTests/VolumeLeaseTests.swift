import Testing

@testable import Volumes

@Suite struct VolumeLeaseTests {
    private func request(log: String = "a", incarnation: UInt64 = 1, oldest: UInt64 = 1, lastSealed: UInt64 = 0) -> VolumeOpenRequest {
        VolumeOpenRequest(volume: "v", logIdentifier: log, incarnation: incarnation, oldestPoint: oldest, lastSealedPoint: lastSealed)
    }

    @Test("the first log is taken, and the same process keeps its generation")
    func first() throws {
        var lease = VolumeLease(generation: 4)
        #expect(try lease.open(request(), receivedPoint: 0))
        #expect(lease.generation == 5)
        #expect(try !lease.open(request(), receivedPoint: 0))
        #expect(lease.generation == 5)
    }

    @Test("another process with the same log gets the next generation")
    func restart() throws {
        var lease = VolumeLease(generation: 1)
        _ = try lease.open(request(), receivedPoint: 0)
        #expect(try lease.open(request(incarnation: 2), receivedPoint: 0))
        #expect(lease.generation == 3)
    }

    @Test("another log is refused, and changes nothing")
    func logLost() throws {
        var lease = VolumeLease(generation: 1)
        _ = try lease.open(request(), receivedPoint: 0)
        let before = lease
        #expect(throws: VolumeOpenRefusal.logLost) { try lease.open(request(log: "b"), receivedPoint: 0) }
        #expect(lease == before)
    }

    @Test("a log that is older than home is refused")
    func logFromThePast() {
        var lease = VolumeLease(generation: 1)
        #expect(throws: VolumeOpenRefusal.logFromThePast(received: 7, lastSealed: 6)) {
            try lease.open(request(oldest: 5, lastSealed: 6), receivedPoint: 7)
        }
    }

    @Test("a home that is older than the log is refused; a log that starts right behind home is not")
    func homeFromThePast() throws {
        var lease = VolumeLease(generation: 1)
        #expect(throws: VolumeOpenRefusal.homeFromThePast(received: 3, oldest: 5)) {
            try lease.open(request(oldest: 5, lastSealed: 9), receivedPoint: 3)
        }
        #expect(try lease.open(request(oldest: 5, lastSealed: 9), receivedPoint: 4))
    }
}
