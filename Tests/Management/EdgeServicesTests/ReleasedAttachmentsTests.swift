import APIModels
import Foundation
import Testing

@testable import EdgeServices

@Suite struct ReleasedAttachmentsTests {
    private func grant(_ identifier: String, isDetaching: Bool) -> VolumeGrant {
        VolumeGrant(
            identifier: identifier, name: "data", disk: "data", sectorCount: 8, target: "iqn.2026-01.test:data",
            chap: VolumeCreate.Chap(user: "user", secret: "secret-secret"), allowedInitiators: [], identity: Data(), keys: [],
            isDetaching: isDetaching)
    }

    @Test func aLogMayGoWhileHomeTakesTheVolumeBack() {
        var released = ReleasedAttachments()
        released.insert("a", after: 3)
        released.forgetServed([grant("a", isDetaching: true)], from: 4)
        released.forgetServed([], from: 5)
        #expect(released.contains("a") && !released.contains("b"))
    }

    @Test("what is written after home has kept a volume that was given back is not thrown away when it is detached by force later")
    func aVolumeThatIsServedOnKeepsItsLog() {
        var released = ReleasedAttachments()
        for identifier in ["a", "b"] { released.insert(identifier, after: 3) }
        released.forgetServed([grant("a", isDetaching: false)], from: 4)
        #expect(!released.contains("a") && released.contains("b"))
    }

    @Test("grants that were asked for before a volume was given back do not say that it is served on")
    func staleGrantsSayNothing() {
        var released = ReleasedAttachments()
        released.insert("a", after: 3)
        released.forgetServed([grant("a", isDetaching: false)], from: 3)
        #expect(released.contains("a"))
        released.remove("a")
        #expect(!released.contains("a"))
    }

    @Test func whatIsGoneIsForgotten() {
        var released = ReleasedAttachments()
        for identifier in ["a", "b"] { released.insert(identifier, after: 1) }
        released.keep(["b"])
        #expect(!released.contains("a") && released.contains("b"))
    }
}
