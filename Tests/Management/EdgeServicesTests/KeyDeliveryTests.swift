import APIModels
import Blocks
import Ciphers
import Foundation
import ISCSI
import ManagementAPI
import NIOCore
import NIOFoundationCompat
import Testing

@testable import EdgeServices

/// Keys on their way from home to a cloud edge.
@Suite struct KeyDeliveryTests {
    private static let volume = VolumeIdentifier(high: 1, low: 2)
    private static let other = VolumeIdentifier(high: 1, low: 3)
    private static let secret = "what machines know"
    private static let mutualSecret = "what the target knows"

    private let cacheKey: SecretKey
    private let dataKeys: [SecretKey]

    init() throws {
        cacheKey = try SecretKey.random()
        dataKeys = try (0..<3).map { _ in try SecretKey.random() }
    }

    private func granted(_ key: SecretKey, of volume: VolumeIdentifier, _ generation: KeyGeneration, _ sender: KeySender) throws
        -> GrantedKey
    {
        let owner = KeyOwner.volume(identifier: volume.description, generation: generation)
        return GrantedKey(generation: generation, key: try sender.wrap(key, of: owner))
    }

    /// A grant of a volume with two keys; and one of another that can't be served now.
    private func grants(_ sender: KeySender) throws -> Grants {
        let grant = VolumeGrant(
            identifier: Self.volume.description, name: "v", disk: "d", sectorCount: 8, target: "iqn.x:v",
            chap: .init(
                user: "u", secret: try sender.wrap(Self.secret, of: .initiators(identifier: Self.volume.description, isMutual: false)),
                mutualUser: "m",
                mutualSecret: try sender.wrap(Self.mutualSecret, of: .initiators(identifier: Self.volume.description, isMutual: true))),
            allowedInitiators: [], identity: Data(count: 16),
            keys: [try granted(dataKeys[0], of: Self.volume, 1, sender), try granted(dataKeys[1], of: Self.volume, 2, sender)],
            isDetaching: false)
        return Grants(
            encapsulation: sender.encapsulation, cacheKey: try sender.wrap(cacheKey, of: .cache(edge: "edge")), volumes: [grant],
            unavailable: [Self.other.description],
            unavailableKeys: [.init(identifier: Self.other.description, keys: [try granted(dataKeys[2], of: Self.other, 1, sender)])])
    }

    private func check(_ received: ReceivedSecrets) throws {
        #expect(received.cache.hasSameBytes(as: cacheKey))
        let keys = try #require(received.volumeKeys[Self.volume])
        #expect(keys.generations == [2, 1])
        #expect(keys.newestKey.hasSameBytes(as: dataKeys[1]))
        #expect(try #require(keys[1]).hasSameBytes(as: dataKeys[0]))
        #expect(try #require(received.volumeKeys[Self.other]?.newestKey).hasSameBytes(as: dataKeys[2]))
        let credentials = try CHAPCredentials(user: "u", secret: Self.secret, mutualUser: "m", mutualSecret: Self.mutualSecret)
        #expect(received.credentials == [Self.volume: credentials])
        #expect(received.secrets(of: Self.volume)?.credentials == credentials)
        #expect(received.secrets(of: Self.other) == nil)
    }

    private func holds(_ message: ByteBuffer, _ key: SecretKey) -> Bool {
        let (bytes, text) = (key.withUnsafeBytes { Data($0) }, Data(buffer: message))
        return [bytes, Data(bytes.base64EncodedString().utf8)].contains { text.range(of: $0) != nil }
    }

    @Test func keysAreOpenedByWhoAskedAndAreNotInTheMessage() throws {
        let recipient = try KeyRecipient(home: "home", edge: "edge")
        let call = try ControlCoding.decode(
            GrantsCall.self, from: ControlCoding.encode(GrantsCall(publicKey: recipient.publicKey)))
        let message = try ControlCoding.encode(try grants(try KeySender(to: call.publicKey, home: "home", edge: "edge")))
        for key in [cacheKey] + dataKeys { #expect(!holds(message, key)) }
        for secret in [Self.secret, Self.mutualSecret] { #expect(!String(buffer: message).contains(secret)) }
        try check(try recipient.open(ControlCoding.decode(Grants.self, from: message)))
    }

    @Test func nobodyElseOpensThemNorInAnotherPlace() throws {
        let recipient = try KeyRecipient(home: "home", edge: "edge")
        let sender = try KeySender(to: recipient.publicKey, home: "home", edge: "edge")
        let grants = try grants(sender)
        try check(try recipient.open(grants))
        #expect(throws: Problem.self, "another question") { try KeyRecipient(home: "home", edge: "edge").open(grants) }
        for (home, edge) in [("other", "edge"), ("home", "other")] {
            let wrapped = try self.grants(try KeySender(to: recipient.publicKey, home: home, edge: edge))
            #expect(throws: Problem.self) { try recipient.open(wrapped) }
        }
        var swapped = grants
        swapped.volumes[0].keys[0].key = grants.volumes[0].keys[1].key
        #expect(throws: Problem.self, "another generation's") { try recipient.open(swapped) }
        swapped = grants
        swapped.unavailableKeys?[0].keys[0].key = grants.volumes[0].keys[0].key
        #expect(throws: Problem.self, "another volume's") { try recipient.open(swapped) }
        swapped = grants
        swapped.cacheKey = grants.volumes[0].keys[0].key
        #expect(throws: Problem.self, "a volume's for the cache's") { try recipient.open(swapped) }
        swapped = grants
        swapped.volumes[0].chap.mutualSecret = grants.volumes[0].chap.secret
        #expect(throws: Problem.self, "the initiator's secret for the target's") { try recipient.open(swapped) }
        var damaged = grants
        damaged.encapsulation = Data(count: 32)
        #expect(throws: Problem.self) { try recipient.open(damaged) }
        // Without the encapsulation they would be plain keys, and those have another length.
        damaged.encapsulation = nil
        #expect(throws: CipherError.self) { try recipient.open(damaged) }
    }

    @Test func aQuestionWithoutAPublicKeyIsNotAnswered() throws {
        for publicKey in [Data(), Data(count: 32), Data(count: 33)] {
            #expect(throws: APIError.self) { try KeySender(to: publicKey, home: "home", edge: "edge") }
        }
    }

    /// An edge of an older version asks with an empty object, and an older home answers without an encapsulation.
    @Test func edgesOfOlderVersionsAreUnderstood() throws {
        let call = try ControlCoding.decode(GrantsCall.self, from: ByteBuffer(string: "{}"))
        let sender = try KeySender(to: call.publicKey, home: "home", edge: "edge")
        let message = try ControlCoding.encode(try grants(sender))
        #expect(!String(buffer: message).contains("encapsulation"))
        #expect(holds(message, dataKeys[0]))
        try check(try KeyRecipient(home: "home", edge: "edge").open(ControlCoding.decode(Grants.self, from: message)))
    }

    @Test func aVolumeWithoutKeysHasNone() throws {
        let recipient = try KeyRecipient(home: "home", edge: "edge")
        var grants = try grants(try KeySender(to: recipient.publicKey, home: "home", edge: "edge"))
        grants.volumes[0].keys = []
        #expect(try recipient.open(grants).volumeKeys[Self.volume] == nil)
    }
}
