import APIModels
import Blocks
import Ciphers
import Foundation
import ManagementAPI

// How keys come to a cloud edge. TLS hides them from the line; but what a message is read from and decoded through is ordinary memory,
// is not wiped, and may reach swap. So a grant has its keys wrapped, for this one answer:
//
//     cloud edge                                            home
//     a new X25519 pair ──public key (volumes.grants)─────► encapsulates a wrapping key to it (RFC 9180), for these two edges
//     finds the wrapping key ◄──encapsulation, wrapped keys─ wraps each key by it, bound to what it belongs to
//     opens each key into locked memory, forgets the pair
//
// That each is who it says is proved by the certificates of the link. An edge from before this sends no public key, and gets its keys as
// they are; a home from before it sends no encapsulation.

/// Names an occasion of key delivery: the same at both edges.
private func occasion(home: String, edge: String) -> [UInt8] {
    // Identifiers of edges have no zero bytes.
    Array(home.utf8) + [0] + Array(edge.utf8)
}

private let wrappingPurpose = "causeway key delivery 1"

/// The keys of one answer, as home wraps them.
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
}

/// One question of a cloud edge for its keys, until it has read the answer.
struct KeyRecipient: Sendable {
    private let pair: AgreementKey
    private let home: String
    private let edge: String

    init(home: String, edge: String) throws {
        pair = try AgreementKey()
        self.home = home
        self.edge = edge
    }

    /// What home is to wrap the keys for.
    var publicKey: Data { Data(pair.publicKey) }

    /// Opens the keys of an answer. Throws a `Problem` when one was not wrapped for it, in its place.
    func open(_ grants: Grants) throws -> ReceivedKeys {
        let wrapping = try grants.encapsulation.map { encapsulation in
            let key = try KeyEncapsulation.decapsulate(
                Array(encapsulation), by: pair, information: occasion(home: home, edge: edge), purpose: wrappingPurpose)
            guard let key else { throw Problem.keysDoNotOpen }
            return key
        }
        func open(_ bytes: Data, of owner: KeyOwner) throws -> SecretKey {
            guard let wrapping else { return try bytes.withUnsafeBytes { try SecretKey(copying: $0) } }
            guard let key = try SecretKey.unwrapping(Array(bytes), with: wrapping, of: owner.name) else { throw Problem.keysDoNotOpen }
            return key
        }
        var received = ReceivedKeys(cache: try open(grants.cacheKey, of: .cache(edge: edge)))
        let granted = grants.volumes.map { ($0.identifier, $0.keys) } + (grants.unavailableKeys ?? []).map { ($0.identifier, $0.keys) }
        for (identifier, keys) in granted {
            guard let volume = VolumeIdentifier(hexadecimal: identifier) else { continue }
            let opened = try keys.map { key in
                (key.generation, try open(key.key, of: .volume(identifier: identifier, generation: key.generation)))
            }
            received.volumes[volume] = DataKeys(Dictionary(opened) { first, _ in first })
        }
        return received
    }
}

/// The keys of an answer, in locked memory.
struct ReceivedKeys: Sendable {
    /// The key of the cache's tables.
    let cache: SecretKey
    /// Those of all volumes that are the edge's, also of such that can't be served now. A volume of which home has sent none is not
    /// among them.
    var volumes: [VolumeIdentifier: DataKeys] = [:]
}

extension Problem {
    fileprivate static var keysDoNotOpen: Problem {
        Problem(
            status: 502, code: "keys", title: "The keys do not open",
            detail: "home has sent keys that were not wrapped for this edge's question",
            action: "they are asked for again; if that lasts, compare the versions of both edges")
    }
}
