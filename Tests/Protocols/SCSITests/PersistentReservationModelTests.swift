import Checksums
import NIOCore
import Testing

@testable import SCSI

/// The standard's rules once more, as sets: slow, and written without a look at the implementation's shape.
private struct ReservationModel {
    var keys: [Registrant: UInt64] = [:]
    var type: ReservationType?
    var holders: Set<Registrant> = []

    var isShared: Bool { type?.isAllRegistrants ?? false }

    /// The registrants that are told, with the code; nil when the command must be refused.
    mutating func perform(
        _ action: PersistentReserveOut.ServiceAction, _ key: UInt64, _ actionKey: UInt64, _ newType: ReservationType,
        by who: Registrant
    ) -> [Registrant: AdditionalSenseCode]? {
        if action == .register || action == .registerAndIgnoreExistingKey {
            if action == .register && keys[who, default: 0] != key { return nil }
            if actionKey != 0 {
                keys[who] = actionKey
                if isShared { holders.insert(who) }
                return [:]
            }
            guard keys.removeValue(forKey: who) != nil else { return [:] }
            return leave([who], by: who)
        }
        guard let own = keys[who], own == key else { return nil }
        switch action {
        case .reserve:
            if let type { return holders.contains(who) && type == newType ? [:] : nil }
            take(newType, who)
            return [:]
        case .release:
            guard let type, holders.contains(who) else { return [:] }
            if type != newType { return nil }
            self.type = nil
            holders = []
            return type.admitsRegistrants ? told(.reservationsReleased, but: who) : [:]
        case .clear:
            defer { self = ReservationModel() }
            return told(.reservationsPreempted, but: who)
        case .preempt, .preemptAndAbort: return preempt(actionKey, newType, who)
        default: return nil
        }
    }

    private mutating func preempt(_ victimKey: UInt64, _ newType: ReservationType, _ who: Registrant) -> [Registrant: AdditionalSenseCode]?
    {
        let takesShared = isShared && victimKey == 0
        let takesSingle = type != nil && !isShared && holders.contains { keys[$0] == victimKey }
        if victimKey == 0 && !takesShared { return nil }
        var victims = Set(keys.filter { takesShared || $0.value == victimKey }.keys)
        if victims.isEmpty { return nil }
        if takesShared || takesSingle { victims.remove(who) }
        var attentions: [Registrant: AdditionalSenseCode] = [:]
        for victim in victims {
            keys[victim] = nil
            holders.remove(victim)
            if victim != who { attentions[victim] = .registrationsPreempted }
        }
        if takesShared || takesSingle {
            if type != newType { attentions.merge(told(.reservationsReleased, but: who)) { old, _ in old } }
            take(newType, who)
        } else if keys.isEmpty {
            type = nil
        }
        return attentions
    }

    private mutating func take(_ newType: ReservationType, _ who: Registrant) {
        type = newType
        holders = newType.isAllRegistrants ? Set(keys.keys) : [who]
    }

    private mutating func leave(_ gone: Set<Registrant>, by who: Registrant) -> [Registrant: AdditionalSenseCode] {
        let before = type
        let wasHeld = !holders.isDisjoint(with: gone)
        holders.subtract(gone)
        guard wasHeld, holders.isEmpty, let before else { return [:] }
        type = nil
        return before.admitsRegistrants ? told(.reservationsReleased, but: who) : [:]
    }

    private func told(_ code: AdditionalSenseCode, but who: Registrant) -> [Registrant: AdditionalSenseCode] {
        Dictionary(uniqueKeysWithValues: keys.keys.filter { $0 != who }.map { ($0, code) })
    }

    func conflicts(_ access: ReservationAccess, by who: Registrant) -> Bool {
        guard let type else { return false }
        switch type {
        case .writeExclusive: return access == .write && !holders.contains(who)
        case .exclusiveAccess: return !holders.contains(who)
        case .writeExclusiveRegistrantsOnly, .writeExclusiveAllRegistrants: return access == .write && keys[who] == nil
        case .exclusiveAccessRegistrantsOnly, .exclusiveAccessAllRegistrants: return keys[who] == nil
        }
    }
}

@Suite("Persistent reservations against a model")
struct PersistentReservationModelTests {
    static let registrants = (0..<5).map {
        Registrant(
            initiatorPortName: InitiatorPort.name(initiatorName: "iqn.\($0)", isid: UInt64($0)), relativeTargetPort: 1 + UInt16($0 % 2))
    }

    @Test("Random commands of five initiators", arguments: [UInt64(1), 2, 3, 4, 5, 6, 7, 8])
    func randomCommands(seed: UInt64) throws {
        var random = seed
        func next(_ bound: Int) -> Int {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(random >> 33) % bound
        }
        let actions: [PersistentReserveOut.ServiceAction] = [
            .register, .register, .registerAndIgnoreExistingKey, .reserve, .reserve, .reserve, .release, .preempt, .preemptAndAbort, .clear,
        ]
        var state = PersistentReservations()
        var model = ReservationModel()
        for step in 0..<1500 {
            // CLEAR is rare, so that states grow.
            let drawn = actions[next(actions.count)]
            let action = drawn == .clear && next(8) > 0 ? .reserve : drawn
            let who = Self.registrants[next(5)]
            // Mostly the right key; few keys, so that registrants share them.
            let key = next(8) == 0 ? UInt64(next(4)) : state.key(of: who) ?? 0
            let actionKey = UInt64(next(4))
            let type = ReservationType.allCases[next(6)]
            let before = state
            let expected = model.perform(action, key, actionKey, type, by: who)
            do throws(PersistentReservations.Refusal) {
                let effects = try state.perform(
                    PersistentReserveOut(serviceAction: action, type: type.rawValue),
                    PersistentReserveParameters(key: key, serviceActionKey: actionKey), by: who)
                let told = Dictionary(effects.attentions.map { ($0.registrant, $0.code) }) { first, _ in first }
                #expect(told == expected && told.count == effects.attentions.count, "step \(step): \(action) by \(who)")
                #expect(effects.aborted.isEmpty || action == .preemptAndAbort)
            } catch {
                #expect(expected == nil, "step \(step): \(action) was refused: \(error)")
                #expect(state.registrations == before.registrations && state.reservation == before.reservation)
                #expect(state.generation == before.generation)
            }
            // One expectation a step: they are dear in a debug build.
            #expect(Self.agree(state, model), "step \(step): \(action) by \(who)")
            let kept = try PersistentReservations(decoding: state.encoded())
            #expect(kept.registrations == state.registrations && kept.reservation == state.reservation && kept.isPersistent)
        }
    }

    private static func agree(_ state: PersistentReservations, _ model: ReservationModel) -> Bool {
        Dictionary(uniqueKeysWithValues: state.registrations.map { ($0.registrant, $0.key) }) == model.keys
            && state.reservation?.type == model.type
            && registrants.allSatisfy { other in
                state.isHolder(other) == model.holders.contains(other)
                    && [ReservationAccess.read, .write].allSatisfy { state.conflicts($0, by: other) == model.conflicts($0, by: other) }
            }
    }

    @Test("A state that was kept is the same, and any damage is seen")
    func damage() throws {
        var state = PersistentReservations()
        let command = PersistentReserveOut(serviceAction: .register)
        for (index, registrant) in Self.registrants.enumerated() {
            let key = UInt64(index + 1)
            _ = try state.perform(command, PersistentReserveParameters(key: 0, serviceActionKey: key), by: registrant)
        }
        _ = try state.perform(
            PersistentReserveOut(serviceAction: .reserve, type: 5), PersistentReserveParameters(key: 3), by: Self.registrants[2])
        let encoded = state.encoded()
        #expect(try PersistentReservations(decoding: encoded).isHolder(Self.registrants[2]))
        for index in 0..<encoded.readableBytes {
            var damaged = encoded
            damaged.setInteger(encoded.getInteger(at: index, as: UInt8.self).map { $0 ^ 0x10 } ?? 0, at: index)
            #expect(throws: PersistentReservations.DecodingError.damaged) { try PersistentReservations(decoding: damaged) }
            #expect(throws: PersistentReservations.DecodingError.damaged) {
                try PersistentReservations(decoding: encoded.truncated(to: index))
            }
        }
    }

    @Test("Bytes with a right checksum that no state has")
    func inconsistent() {
        func decoding(_ type: UInt8, _ holder: UInt32, _ count: UInt32, version: UInt16 = 1, keys: [UInt64]) throws {
            var buffer = ByteBuffer()
            buffer.writeMultipleIntegers(UInt32(0x4357_5052), version, type, UInt8(0), holder, count)
            for key in keys {
                buffer.writeMultipleIntegers(key, UInt16(1), UInt16(1))
                buffer.writeString("i")
            }
            buffer.writeInteger(CRC32C.checksum(of: buffer))
            _ = try PersistentReservations(decoding: buffer)
        }
        #expect(throws: Never.self) { try decoding(0, .max, 1, keys: [1]) }
        #expect(throws: PersistentReservations.DecodingError.unknownVersion(2)) { try decoding(0, .max, 1, version: 2, keys: [1]) }
        let cases: [(UInt8, UInt32, UInt32, [UInt64])] = [
            (0, 0, 1, [1]), (1, .max, 1, [1]), (1, 1, 1, [1]), (7, 0, 1, [1]), (7, .max, 0, []), (2, 0, 1, [1]), (0, .max, 1, [0]),
            (0, .max, 2, [1, 2]), (0, .max, 2, [1]), (0, .max, 1, [1, 2]), (0, .max, 257, [1]),
        ]
        for (type, holder, count, keys) in cases {
            #expect(throws: PersistentReservations.DecodingError.self) { try decoding(type, holder, count, keys: keys) }
        }
    }
}
