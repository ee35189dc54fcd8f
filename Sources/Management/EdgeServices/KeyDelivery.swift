import APIModels
import Blocks
import Ciphers
import Foundation
import ISCSI
import ManagementAPI

// How keys, and the secrets of initiators, come to a cloud edge. TLS hides them from the line; but what a message is read from and decoded
// through is ordinary memory, is not wiped, and may reach swap. So a grant has its secrets wrapped, for this one answer:
//
//     cloud edge                                            home
//     a new X25519 pair ──public key (volumes.grants)─────► encapsulates a wrapping key to it (RFC 9180), for these two edges
//     finds the wrapping key ◄──encapsulation, wrapped secrets─ wraps each by it, bound to what it belongs to
//     opens each into locked memory, forgets the pair
//
// That each is who it says is proved by the certificates of the link. An edge from before this sends no public key, and gets all as
// it is; a home from before it sends no encapsulation.

/// Names an occasion of key delivery: the same at both edges.
private func occasion(home: String, edge: String) -> [UInt8] {
    // Identifiers of edges have no zero bytes.
    Array(home.utf8) + [0] + Array(edge.utf8)
}

private let wrappingPurpose = "causeway key delivery 1"

/// The secrets of one answer, as home wraps them.
struct KeySender: Sendable {
    /// What the cloud edge finds the wrapping key by; nil when its version knows plain keys only.
    let encapsulation: Data?
    private let wrapping: SecretKey?

    /// - Parameter publicKey: the cloud edge's, which it has made for this answer.
    init(to publicKey: Data?, home: String, edge: String) throws {
        guard let publicKey else {
            (encapsulation, wrapping) = (nil, nil)
            return
        }
        let made = try KeyEncapsulation.encapsulate(
            to: Array(publicKey), information: occasion(home: home, edge: edge), purpose: wrappingPurpose)
        guard let made else { throw APIError.invalid("publicKey", "is no public key of X25519") }
        (encapsulation, wrapping) = (Data(made.encapsulation), made.key)
    }

    /// A key as it may stand in the answer.
    func wrap(_ key: SecretKey, of owner: KeyOwner) throws -> Data {
        guard let wrapping else { return key.withUnsafeBytes { Data($0) } }
        return Data(try key.wrapped(with: wrapping, of: owner.name))
    }

    /// A text as it may stand in the answer: in base64, as the answer has keys too.
    func wrap(_ text: String, of owner: KeyOwner) throws -> String {
        guard let wrapping else { return text }
        return Data(try SecretText(text).wrapped(with: wrapping, of: owner.name)).base64EncodedString()
    }
}

/// One question of a cloud edge for its grants, until it has read the answer.
struct KeyRecipient: Sendable {
    private let pair: AgreementKey
    private let home: String
    private let edge: String

    init(home: String, edge: String) throws {
        pair = try AgreementKey()
        self.home = home
        self.edge = edge
    }

    /// What home is to wrap the secrets for.
    var publicKey: Data { Data(pair.publicKey) }

    /// Opens the secrets of an answer. Throws a `Problem` when one was not wrapped for it, in its place.
    func open(_ grants: Grants) throws -> ReceivedSecrets {
        let wrapping = try grants.encapsulation.map { encapsulation in
            let key = try KeyEncapsulation.decapsulate(
                Array(encapsulation), by: pair, information: occasion(home: home, edge: edge), purpose: wrappingPurpose)
            guard let key else { throw Problem.secretsDoNotOpen }
            return key
        }
        let opener = SecretOpener(wrapping: wrapping)
        var received = ReceivedSecrets(cache: try opener.open(grants.cacheKey, of: .cache(edge: edge)))
        for unavailable in grants.unavailableKeys ?? [] {
            guard let volume = VolumeIdentifier(hexadecimal: unavailable.identifier) else { continue }
            received.volumeKeys[volume] = try opener.open(unavailable.keys, of: unavailable.identifier)
        }
        for grant in grants.volumes {
            guard let volume = VolumeIdentifier(hexadecimal: grant.identifier) else { continue }
            received.volumeKeys[volume] = try opener.open(grant.keys, of: grant.identifier)
            received.credentials[volume] = try opener.open(grant.chap, of: grant.identifier)
        }
        return received
    }
}

/// Opens what one answer has.
private struct SecretOpener {
    /// Nil for an answer with plain secrets.
    let wrapping: SecretKey?

    func open(_ bytes: Data, of owner: KeyOwner) throws -> SecretKey {
        guard let wrapping else { return try bytes.withUnsafeBytes { try SecretKey(copying: $0) } }
        guard let key = try SecretKey.unwrapping(Array(bytes), with: wrapping, of: owner.name) else { throw Problem.secretsDoNotOpen }
        return key
    }

    func open(_ text: String, of owner: KeyOwner) throws -> SecretText {
        guard let wrapping else { return try SecretText(text) }
        guard let bytes = Data(base64Encoded: text),
            let opened = try SecretText.unwrapping(Array(bytes), with: wrapping, of: owner.name)
        else { throw Problem.secretsDoNotOpen }
        return opened
    }

    /// Nil when there is no key.
    func open(_ keys: [GrantedKey], of identifier: String) throws -> DataKeys? {
        let opened = try keys.map { key in
            (key.generation, try open(key.key, of: .volume(identifier: identifier, generation: key.generation)))
        }
        return DataKeys(Dictionary(opened) { first, _ in first })
    }

    func open(_ chap: VolumeCreate.Chap, of identifier: String) throws -> CHAPCredentials {
        CHAPCredentials(
            user: chap.user, secret: try open(chap.secret, of: .initiators(identifier: identifier, isMutual: false)),
            mutualUser: chap.mutualUser,
            mutualSecret: try chap.mutualSecret.map { try open($0, of: .initiators(identifier: identifier, isMutual: true)) })
    }
}

/// The secrets of an answer, in locked memory.
struct ReceivedSecrets: Sendable {
    /// The key of the cache's tables.
    let cache: SecretKey
    /// The keys of all volumes that are the edge's, also of such that can't be served now. A volume of which home has sent none is not
    /// among them.
    var volumeKeys: [VolumeIdentifier: DataKeys] = [:]
    /// What initiators of the volumes that can be served have to prove.
    var credentials: [VolumeIdentifier: CHAPCredentials] = [:]

    /// What a volume is served with; nil when a part of it is missing.
    func secrets(of volume: VolumeIdentifier) -> VolumeSecrets? {
        guard let keys = volumeKeys[volume], let credentials = credentials[volume] else { return nil }
        return VolumeSecrets(keys: keys, credentials: credentials)
    }

    /// Wipes what there is of a volume, unless it is served still.
    mutating func forget(_ volume: VolumeIdentifier) {
        volumeKeys[volume] = nil
        credentials[volume] = nil
    }
}

/// The secrets of one volume that is served.
struct VolumeSecrets: Sendable {
    let keys: DataKeys
    let credentials: CHAPCredentials
}

extension Problem {
    fileprivate static var secretsDoNotOpen: Problem {
        Problem(
            status: 502, code: "keys", title: "The keys do not open",
            detail: "home has sent keys or secrets that were not wrapped for this edge's question",
            action: "they are asked for again; if that lasts, compare the versions of both edges")
    }
}
