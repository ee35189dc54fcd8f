import APIModels

/// What an edge gives to its management API. One role does not have everything: what it leaves out answers 409 `wrong_role`.
///
/// Methods throw `APIError`, or a `Problem` as it came from the other edge, for what the caller can understand, or what `problem`
/// makes one of; any other error becomes a 500 without details, and a line in the log. Lists may come in any order: the API sorts and pages them.
public protocol EdgeController: Sendable {
    /// The edge's events, which the API lists and streams.
    var events: EventLog { get }

    /// What an error of the edge's own parts is to a caller; nil when that is nobody's business but the log's.
    nonisolated func problem(of error: any Error) -> Problem?

    func edge() async throws -> EdgeStatus
    /// Anyone who can connect may ask: its sentences name nothing that an outsider should not know.
    func health() async -> Health
    func metrics() async -> [MetricSample]

    func edges() async throws -> [PeerEdge]
    /// Revokes the peer's certificate and cuts its link.
    func revokeEdge(identifier: String) async throws
    /// Changes where a peer is dialled, or that it dials.
    func changeEdge(identifier: String, _ change: EdgeChange) async throws -> PeerEdge
    func links() async throws -> [Link]
    /// Changes what this edge sends to a peer at most. Throws `APIError` when there is no such peer, or a value is wrong.
    func changeLink(peer: String, _ change: LinkChange) async throws -> Link
    /// What passed over a link in the last `seconds`, in at most `samples` steps.
    func linkHistory(peer: String, seconds: Int, samples: Int) async throws -> LinkHistory

    func disks() async throws -> [Disk]
    func disk(named name: String) async throws -> Disk
    func createDisk(_ request: DiskCreate) async throws -> Disk
    /// Makes a disk larger.
    func changeDisk(named name: String, _ change: DiskChange) async throws -> Disk
    /// Looks at the disk's size again, and serves it as it is now.
    func rescanDisk(named name: String) async throws -> Disk
    /// Forgets the disk; what is on it stays.
    func deleteDisk(named name: String) async throws

    func volumes() async throws -> [Volume]
    func volume(named name: String) async throws -> Volume
    func createVolume(_ request: VolumeCreate) async throws -> Volume
    func changeVolume(named name: String, _ change: VolumeChange) async throws -> Volume
    func deleteVolume(named name: String) async throws
    func attachVolume(named name: String, _ request: AttachRequest) async throws -> Volume
    /// Stops serving a volume, and takes its disk back to a past point when one is named.
    func detachVolume(named name: String, force: Bool, toPoint point: UInt64?) async throws -> DetachResult
    /// The points that are kept of a volume's disk.
    func points(ofVolume name: String) async throws -> KeptPoints
    /// The disk of a volume as it was at a point that is kept.
    func content(ofVolume name: String, at point: UInt64) async throws -> any PointContent
    /// Seals a point and waits until it has come as far as asked, or until the time is over: the result says how far it came.
    func sealVolume(named name: String, wait: SealResult.State, timeout: Duration) async throws -> SealResult
    /// The write policy by region, and what is cloud-only.
    func regions(ofVolume name: String) async throws -> VolumeRegions
    /// Changes the policy of one range, or what becomes of its cloud-only writes.
    func changeRegions(ofVolume name: String, _ change: RegionChange) async throws -> VolumeRegions
    func credentials(ofVolume name: String) async throws -> VolumeCredentials
    /// Destroys the keys of a volume: what cloud edges have of it can't be read any more.
    func shredVolume(named name: String, force: Bool) async throws -> ShredResult
    /// Gives a volume a new data key while it is served.
    func rotateKey(ofVolume name: String) async throws -> KeyRotation
    /// The data keys of all volumes, with those that were destroyed.
    func dataKeys() async throws -> [DataKey]
    /// What is known of the key that wraps all others.
    func masterKey() async throws -> MasterKeyInfo
    /// Wraps all keys by a new master key.
    func rotateMasterKey() async throws -> MasterKeyInfo
    /// The recovery key of one volume, or those of the whole edge when no name is given. Leaves an event.
    func exportRecoveryKeys(ofVolume name: String?) async throws -> RecoveryKeys

    func cache() async throws -> EdgeCache
    /// Gives the cache another size; the answer says how far that is.
    func changeCache(_ change: CacheChange) async throws -> EdgeCache
    /// Makes a partition of the cache, or gives it another size; none takes it away. Throws when there is none to take away.
    func setCachePartition(named name: String, to byteCount: UInt64?) async throws -> EdgeCache
    /// What a volume may have of the cache, and has.
    func cacheShare(ofVolume name: String) async throws -> CacheShare
    func changeCacheShare(ofVolume name: String, _ change: CacheShareChange) async throws -> CacheShare

    func groups() async throws -> [VolumeGroup]
    func group(named name: String) async throws -> VolumeGroup
    func createGroup(_ request: GroupCreate) async throws -> VolumeGroup
    func changeGroup(named name: String, _ change: GroupChange) async throws -> VolumeGroup
    func deleteGroup(named name: String) async throws
    /// Detaches all volumes of a group together.
    func detachGroup(named name: String, force: Bool) async throws -> GroupDetachResult
    /// As `sealVolume`, for all volumes of a group at one instant.
    func sealGroup(named name: String, wait: SealResult.State, timeout: Duration) async throws -> GroupSealResult

    /// Begins a bracket round a seal; one at a time for each volume and group.
    func beginBracket(_ subject: BracketSubject, _ request: BracketCreate) async throws -> Bracket
    /// The last bracket.
    func bracket(_ subject: BracketSubject) async throws -> Bracket
    func sealBracket(_ subject: BracketSubject) async throws -> Bracket
    func endBracket(_ subject: BracketSubject) async throws -> Bracket

    /// The TCP services that are reached over links.
    func tunnels() async throws -> [Tunnel]
    func tunnel(named name: String) async throws -> Tunnel
    func createTunnel(_ request: TunnelCreate) async throws -> Tunnel
    /// Removes a tunnel, and resets its connections.
    func deleteTunnel(named name: String) async throws

    func createPairingToken(_ request: PairingTokenCreate) async throws -> PairingToken
    /// Joins the on-prem edge that made the token, and answers with it.
    func join(_ request: JoinRequestBody) async throws -> PeerEdge
}

/// What a role does not have.
extension EdgeController {
    public nonisolated func problem(of error: any Error) -> Problem? { nil }
    public func edges() async throws -> [PeerEdge] { throw APIError.wrongRole() }
    public func revokeEdge(identifier: String) async throws { throw APIError.wrongRole(.onprem) }
    public func changeEdge(identifier: String, _ change: EdgeChange) async throws -> PeerEdge { throw APIError.wrongRole(.onprem) }
    public func links() async throws -> [Link] { throw APIError.wrongRole() }
    public func changeLink(peer: String, _ change: LinkChange) async throws -> Link { throw APIError.wrongRole() }
    public func linkHistory(peer: String, seconds: Int, samples: Int) async throws -> LinkHistory { throw APIError.wrongRole() }
    public func disks() async throws -> [Disk] { throw APIError.wrongRole(.onprem) }
    public func disk(named name: String) async throws -> Disk { throw APIError.wrongRole(.onprem) }
    public func createDisk(_ request: DiskCreate) async throws -> Disk { throw APIError.wrongRole(.onprem) }
    public func changeDisk(named name: String, _ change: DiskChange) async throws -> Disk { throw APIError.wrongRole(.onprem) }
    public func rescanDisk(named name: String) async throws -> Disk { throw APIError.wrongRole(.onprem) }
    public func deleteDisk(named name: String) async throws { throw APIError.wrongRole(.onprem) }
    public func volumes() async throws -> [Volume] { throw APIError.wrongRole() }
    public func volume(named name: String) async throws -> Volume { throw APIError.wrongRole() }
    public func createVolume(_ request: VolumeCreate) async throws -> Volume { throw APIError.wrongRole(.onprem) }
    public func changeVolume(named name: String, _ change: VolumeChange) async throws -> Volume { throw APIError.wrongRole(.onprem) }
    public func deleteVolume(named name: String) async throws { throw APIError.wrongRole(.onprem) }
    public func attachVolume(named name: String, _ request: AttachRequest) async throws -> Volume {
        throw APIError.wrongRole(.onprem)
    }
    public func detachVolume(named name: String, force: Bool, toPoint point: UInt64?) async throws -> DetachResult {
        throw APIError.wrongRole(.onprem)
    }
    public func points(ofVolume name: String) async throws -> KeptPoints { throw APIError.wrongRole(.onprem) }
    public func content(ofVolume name: String, at point: UInt64) async throws -> any PointContent { throw APIError.wrongRole(.onprem) }
    public func sealVolume(named name: String, wait: SealResult.State, timeout: Duration) async throws -> SealResult {
        throw APIError.wrongRole()
    }
    public func regions(ofVolume name: String) async throws -> VolumeRegions { throw APIError.wrongRole() }
    public func changeRegions(ofVolume name: String, _ change: RegionChange) async throws -> VolumeRegions { throw APIError.wrongRole() }
    public func credentials(ofVolume name: String) async throws -> VolumeCredentials { throw APIError.wrongRole(.onprem) }
    public func shredVolume(named name: String, force: Bool) async throws -> ShredResult { throw APIError.wrongRole(.onprem) }
    public func rotateKey(ofVolume name: String) async throws -> KeyRotation { throw APIError.wrongRole(.onprem) }
    public func dataKeys() async throws -> [DataKey] { throw APIError.wrongRole(.onprem) }
    public func masterKey() async throws -> MasterKeyInfo { throw APIError.wrongRole(.onprem) }
    public func rotateMasterKey() async throws -> MasterKeyInfo { throw APIError.wrongRole(.onprem) }
    public func exportRecoveryKeys(ofVolume name: String?) async throws -> RecoveryKeys { throw APIError.wrongRole(.onprem) }
    public func cache() async throws -> EdgeCache { throw APIError.wrongRole(.cloud) }
    public func changeCache(_ change: CacheChange) async throws -> EdgeCache { throw APIError.wrongRole(.cloud) }
    public func setCachePartition(named name: String, to byteCount: UInt64?) async throws -> EdgeCache { throw APIError.wrongRole(.cloud) }
    public func cacheShare(ofVolume name: String) async throws -> CacheShare { throw APIError.wrongRole(.cloud) }
    public func changeCacheShare(ofVolume name: String, _ change: CacheShareChange) async throws -> CacheShare {
        throw APIError.wrongRole(.cloud)
    }
    public func groups() async throws -> [VolumeGroup] { throw APIError.wrongRole() }
    public func group(named name: String) async throws -> VolumeGroup { throw APIError.wrongRole() }
    public func createGroup(_ request: GroupCreate) async throws -> VolumeGroup { throw APIError.wrongRole(.onprem) }
    public func changeGroup(named name: String, _ change: GroupChange) async throws -> VolumeGroup { throw APIError.wrongRole(.onprem) }
    public func deleteGroup(named name: String) async throws { throw APIError.wrongRole(.onprem) }
    public func detachGroup(named name: String, force: Bool) async throws -> GroupDetachResult { throw APIError.wrongRole(.onprem) }
    public func sealGroup(named name: String, wait: SealResult.State, timeout: Duration) async throws -> GroupSealResult {
        throw APIError.wrongRole()
    }
    public func beginBracket(_ subject: BracketSubject, _ request: BracketCreate) async throws -> Bracket { throw APIError.wrongRole() }
    public func bracket(_ subject: BracketSubject) async throws -> Bracket { throw APIError.wrongRole() }
    public func sealBracket(_ subject: BracketSubject) async throws -> Bracket { throw APIError.wrongRole() }
    public func endBracket(_ subject: BracketSubject) async throws -> Bracket { throw APIError.wrongRole() }
    public func tunnels() async throws -> [Tunnel] { throw APIError.wrongRole() }
    public func tunnel(named name: String) async throws -> Tunnel { throw APIError.wrongRole() }
    public func createTunnel(_ request: TunnelCreate) async throws -> Tunnel { throw APIError.wrongRole(.onprem) }
    public func deleteTunnel(named name: String) async throws { throw APIError.wrongRole(.onprem) }
    public func createPairingToken(_ request: PairingTokenCreate) async throws -> PairingToken {
        throw APIError.wrongRole(.onprem)
    }
    public func join(_ request: JoinRequestBody) async throws -> PeerEdge { throw APIError.wrongRole(.cloud) }
}
