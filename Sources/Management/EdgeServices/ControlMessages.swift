import APIModels
import Ciphers
import Foundation
import NIOCore
import NIOFoundationCompat

// What the edges call each other, in JSON over the link's control class.
//
//   cloud -> on-prem   volumes.grants   GrantsCall            -> Grants
//                      volume.open      VolumeOpenRequest     -> VolumeOpenReply
//                      volume.detach    VolumeCall            -> DetachResult
//                      edge.renew       RenewCall             -> RenewAnswer
//                      keys.retire      RetireKeysCall        -> {}
//   on-prem -> cloud   volume.seal      SealCall              -> SealResult
//                      group.seal       SealCall              -> GroupSealResult
//                      point.bracket    BracketCall           -> Bracket
//                      volume.resizeLog ResizeLogCall         -> {}
//                      volume.regions   VolumeCall            -> VolumeRegions
//                      volume.changeRegions ChangeRegionsCall -> VolumeRegions
//                      volume.release   ReleaseCall           -> DetachResult
//                      volume.shred     ShredCall             -> {}
//                      volumes.status   {}                    -> [VolumeStatus]
//   notices            grants.changed (on-prem -> cloud): ask for the grants again

/// The names of the calls.
enum ControlMethod {
    static let grants = "volumes.grants"
    static let open = "volume.open"
    static let seal = "volume.seal"
    static let resizeLog = "volume.resizeLog"
    static let regions = "volume.regions"
    static let changeRegions = "volume.changeRegions"
    static let release = "volume.release"
    static let status = "volumes.status"
    static let renew = "edge.renew"
    static let grantsChanged = "grants.changed"
    static let detachVolume = "volume.detach"
    static let sealGroup = "group.seal"
    static let bracket = "point.bracket"
    static let retireKeys = "keys.retire"
    static let shred = "volume.shred"
}

/// Nothing to say.
struct Empty: Codable, Sendable {}

/// What may this edge serve?
struct GrantsCall: Codable, Sendable {
    /// What the keys of the answer are to be wrapped for (X25519); nil from an edge of a version that knows plain keys only.
    var publicKey: Data?
}

/// All that a cloud edge needs to serve its volumes. It is held in memory only.
struct Grants: Codable, Sendable {
    /// What the edge finds the key by that all keys in here are wrapped with; nil from an older home, or for an older edge: then they are
    /// plain.
    var encapsulation: Data?
    /// The key under which this edge's cache tables are encrypted.
    var cacheKey: Data
    var volumes: [VolumeGrant]
    /// Identifiers of volumes that are the edge's, but whose disks home can't open now.
    var unavailable: [String]
    /// The keys of those, as far as they can be opened: what the edge has of them is still theirs. Nil from an older home.
    var unavailableKeys: [UnavailableKeys]?
    /// Nil from a home of a version without groups.
    var groups: [GroupGrant]?
    /// Nil from a home of a version without tunnels.
    var tunnels: [TunnelGrant]?
}

/// A service that is reached over the link, as the cloud edge has to know it.
struct TunnelGrant: Codable, Sendable, Equatable {
    var name: String
    var direction: Tunnel.Direction
    /// Where the cloud edge listens, or what it connects to.
    var address: String
    var precedence: Tunnel.Precedence
    /// From where clients may come, if the cloud edge listens.
    var allow: [String]
}

/// The keys of a volume that is not granted now.
struct UnavailableKeys: Codable, Sendable {
    /// 32 hexadecimal digits.
    var identifier: String
    var keys: [GrantedKey]
}

/// Volumes that have their points together.
struct GroupGrant: Codable, Sendable, Equatable {
    /// 32 hexadecimal digits.
    var identifier: String
    var name: String
    /// The identifiers of its volumes that are attached to the edge.
    var volumes: [String]
    var policy: Volume.Policy
    /// The number of the last point that home knows of.
    var lastPoint: UInt64
}

/// One volume that an edge is to serve.
struct VolumeGrant: Codable, Sendable, Equatable {
    /// 32 hexadecimal digits.
    var identifier: String
    var name: String
    var disk: String
    var sectorCount: UInt64
    /// The iSCSI name of its target.
    var target: String
    // What is optional came with a later version than the first: an edge may be newer than home.
    /// What its volumes call the target.
    var targetName: String?
    /// The number in the target; nil for 0.
    var logicalUnit: Int?
    /// The secrets in it are wrapped as keys are; `KeyRecipient` opens them.
    var chap: VolumeCreate.Chap
    var allowedInitiators: [String]
    /// Sixteen bytes that name the disk, the same in every attachment.
    var identity: Data
    /// The volume's data keys that are not destroyed: the newest seals, all open. `KeyRecipient` opens them.
    var keys: [GrantedKey]
    /// The volume's own policy; nil for the edge's.
    var policy: Volume.Policy?
    /// Nil when nothing is limited.
    var limits: Volume.Limits?
    /// Machines may only read it; nil for no.
    var isReadOnly: Bool?
    /// Nil from a home that knows fixed disks only.
    var isRemovable: Bool?
    /// It is in one of the groups; nil for no.
    var isGrouped: Bool?
    /// Home is taking the volume back: it is not to be exported any more.
    var isDetaching: Bool
}

/// Do something with a bracket round a seal.
struct BracketCall: Codable, Sendable {
    enum Action: String, Codable, Sendable { case begin, show, seal, end }

    var subject: BracketSubject
    var action: Action
    var request: BracketCreate?
}

/// One generation of a volume's data key on its way to the edge: see KeyDelivery.swift.
struct GrantedKey: Codable, Sendable, Equatable {
    var generation: KeyGeneration
    /// Wrapped for the answer that it is in; plain where that has no encapsulation.
    var key: Data
}

/// Of what the edge has of an attachment nothing is sealed under its keys before a generation, but for those that are needed.
struct RetireKeysCall: Codable, Sendable {
    /// The attachment, 32 hexadecimal digits.
    var identifier: String
    var before: KeyGeneration
    var needed: [KeyGeneration]
}

/// The keys of an attachment are destroyed: let go of all that there is of it.
struct ShredCall: Codable, Sendable {
    /// The attachment, 32 hexadecimal digits.
    var identifier: String
}

/// Home takes one attachment of a volume back.
struct ReleaseCall: Codable, Sendable {
    /// The attachment, 32 hexadecimal digits.
    var identifier: String
    var force: Bool
}

/// Give the volume's write log another size.
struct ResizeLogCall: Codable, Sendable {
    var name: String
    /// In bytes; 0 for the edge's own.
    var sizeBytes: UInt64
}

/// Change the write policy of one range of a volume.
struct ChangeRegionsCall: Codable, Sendable {
    var name: String
    var change: RegionChange
}

/// A cloud edge whose certificate is getting old asks for a new one, for a new key.
struct RenewCall: Codable, Sendable {
    /// In PEM.
    var signingRequest: String
}

/// The new certificate.
struct RenewAnswer: Codable, Sendable {
    /// In PEM.
    var certificate: String
}

/// Names a volume, and how it is to be treated.
struct VolumeCall: Codable, Sendable {
    var name: String
    var force: Bool?
    /// The past point that a detach takes the disk back to.
    var toPoint: UInt64?
}

/// Seal the volume, and answer when the point has come this far.
struct SealCall: Codable, Sendable {
    var name: String
    var until: SealResult.State
    /// Answer with what has been reached by then.
    var seconds: Int64
}

/// What a cloud edge tells home of a volume that it serves.
struct VolumeStatus: Codable, Sendable {
    var identifier: String
    var state: Volume.State
    var message: String?
    var unsent: Volume.Unsent
    /// Nil from an edge of an older version.
    var writeLog: Volume.WriteLog?
    var points: Volume.Points
    var cache: Volume.Cache
    var io: Volume.IO
    /// Nil while there is no cloud-only disk.
    var cloudOnlyBytes: UInt64?
    /// The policy in force.
    var policy: Volume.Policy
    /// The limits in force; nil when nothing is limited.
    var limits: Volume.Limits?
    /// What they have done; nil from an edge of an older version.
    var throttle: Volume.Throttle?
    /// Write protection in force; nil from an edge of an older version.
    var isReadOnly: Bool?
    /// The generation of the key that seals what is written.
    var keyGeneration: KeyGeneration?
    var portals: [String]
    /// The NBD URL; nil when the edge does not serve NBD.
    var nbdURL: String?
}

/// JSON in and out of the link's buffers.
enum ControlCoding {
    static func encode(_ value: some Encodable) throws -> ByteBuffer {
        ByteBuffer(data: try APICoding.encoder().encode(value))
    }

    static func decode<Value: Decodable>(_ type: Value.Type, from buffer: ByteBuffer) throws -> Value {
        try APICoding.decoder().decode(type, from: Data(buffer: buffer))
    }
}
