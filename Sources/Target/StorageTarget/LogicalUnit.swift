// A logical unit is what an initiator sees of a block device. A command passes through it so:
//
//   CDB --parse--> command --admit--> task --execute--> response
//                    |        |                 |
//                    |        |                 +-- on the medium: range lock, device, answer
//                    |        +-- unit attention, reservation, write protection, range and limits
//                    +-- sense data: unknown command, invalid field
//
// Admission comes before Data-Out is asked for, so that a command that must fail costs no transfer and no memory. It looks
// at reservations again when the task is executed, because another initiator may have come between.

import Blocks
import NIOCore
import SCSI

/// Executes SCSI commands on a block device, on that device's event loop only.
public final class LogicalUnit {
    /// The most tasks on the medium or waiting for it; one more is answered with TASK SET FULL.
    public static var maximumTasks: Int { 1024 }
    /// The most I_T nexuses; one more is refused by `addNexus`.
    public static var maximumNexuses: Int { 1024 }
    /// The bytes of a logical block.
    public static var blockBytes: Int { BlockGeometry.sectorBytes }

    /// Of a class, so a call is one look into a table. With the device's type as a parameter of all that is in this room, its
    /// tables and closures were generic code, which costs more.
    public let device: any BlockDevice
    public let identity: LogicalUnitIdentity
    public let number: LogicalUnitNumber
    public let limits: BlockLimits
    /// The units that REPORT LUNS names; this one alone unless the target says otherwise.
    public var reportedNumbers: () -> [LogicalUnitNumber]
    /// Runs a closure later on the device's event loop; without it nothing is paced.
    var delay: ((TimeAmount, @escaping () -> Void) -> Void)?

    /// The units that an EXTENDED COPY of a nexus may reach besides this one.
    public var copyPeers: (NexusIdentifier) -> [LogicalUnitCopyPeer] = { _ in [] }
    /// The relative identifiers of the target ports through which the unit is reached; the identity's own unless the target says
    /// otherwise. REPORT TARGET PORT GROUPS names each in a group of its own by the same number.
    public var relativeTargetPorts: () -> [UInt16]

    var parameters = ModeParameters()
    var reservations = PersistentReservations() { didSet { accessDidChange() } }
    /// Keeps what APTPL asks to be kept; without it, APTPL is refused.
    public var reservationStore: ReservationStore?
    var reservationUpdates: [LogicalUnitReservationUpdate] = []
    /// A store has failed, so that nobody knows whether the old state is kept or the one that was refused: the next change is
    /// stored whatever it is.
    var isReservationStoreInDoubt = false
    var isUpdatingReservations = false
    /// Who holds the unit by RESERVE (6).
    var legacyHolder: NexusIdentifier? { didSet { accessDidChange() } }
    /// True while a reservation shuts somebody out from reading; then each nexus says whether it may.
    var restrictsReads = false

    var nexuses: [NexusIdentifier: LogicalUnitNexus] = [:]
    /// How many nexuses have a unit attention pending, so that a cached read asks one number instead of a table.
    var attentiveNexusCount = 0

    /// A SANITIZE or FORMAT UNIT that is under way or has failed.
    var backgroundOperation: LogicalUnitBackgroundOperation?
    /// Set when the unit is served no more: what runs without a command begins no further step.
    var isRetired = false
    /// False while the medium of a removable unit is ejected.
    var isMediumLoaded = true
    /// Who said PREVENT and not yet ALLOW.
    var removalPreventers: Set<NexusIdentifier> = []

    var order = LogicalUnitTaskOrder()
    /// Tasks that wait for their turn, in the order in which their data arrived.
    var waitingTasks: [LogicalUnitWaitingTask] = []
    /// Those that wait for their turn before they take memory for their data.
    var turnWaiters: [LogicalUnitTurnWaiter] = []
    var isStartingWaiting = false
    var locks = LogicalUnitRangeLocks()
    var runningTasks: [UInt64: LogicalUnitRunningTask] = [:]
    var lastTaskIdentifier: UInt64 = 0
    var readyTasks: [UInt64] = []
    var isStartingTasks = false
    var isPrefetching = false
    var runningCopies = 0
    /// How often all tasks were aborted.
    var clearCount: UInt64 = 0

    public init(
        device: any BlockDevice, identity: LogicalUnitIdentity, number: LogicalUnitNumber = LogicalUnitNumber(rawValue: 0),
        limits: BlockLimits = BlockLimits()
    ) {
        self.device = device
        self.identity = identity
        self.number = number
        self.limits = limits
        self.reportedNumbers = { [number] }
        self.relativeTargetPorts = { [identity.relativeTargetPort] }
    }

    /// Paces work in the background by the event loop of the device.
    public func pace(by eventLoop: any EventLoop) {
        delay = { time, work in
            let bound = NIOLoopBound(work, eventLoop: eventLoop)
            eventLoop.scheduleTask(in: time) { bound.value() }
        }
    }

    /// How much data the command moves and which way, from SCSI's side.
    public func expectedTransfer(of command: SCSICommand) -> DataTransfer {
        command.dataTransfer(blockBytes: Self.blockBytes)
    }

    /// Answers a plain read from memory, when nothing stands in the way and every byte is at hand.
    ///
    /// `transfer` comes from `CommandDescriptorBlock.plainRead`, and the task's attribute is simple. The caller compares
    /// the length with the initiator's expectation first. Without `nexus`, a unit attention of any initiator stands in the way,
    /// and a reservation that shuts anybody out from reading.
    /// - Returns: false, with `buffer` unchanged, when the command must go through `admit` and `execute`.
    public func readIfResident(_ transfer: BlockTransfer, nexus: NexusIdentifier? = nil, into buffer: inout ByteBuffer) -> Bool {
        // An initiator that never takes its attention must not slow down the others, so the table is asked in the end.
        if attentiveNexusCount > 0 || restrictsReads {
            guard let nexus, let found = nexuses[nexus], found.attentions.isEmpty, found.mayRead else { return false }
        }
        guard !locks.hasExclusive, order.isFree, isMediumLoaded,
            backgroundOperation == nil,
            transfer.blockCount <= limits.maximumTransfer, !transfer.forceUnitAccess, let range = sectorRange(of: transfer)
        else { return false }
        return device.readIfResident(range, into: &buffer)
    }

    /// Carries out a task now; another initiator may have come between its admission and this.
    func perform(_ task: SCSITask, completion: @escaping (SCSIResponse) -> Void) {
        if let refusal = readmission(of: task) {
            completion(formatted(refusal))
            return
        }
        switch task.command {
        case .read, .write, .writeAtomic, .writeAndVerify, .verify, .compareAndWrite, .orWrite, .prefetch, .synchronizeCache,
            .unmap, .writeSame, .getLBAStatus:
            executeOnMedium(task, completion: completion)
        case .startStopUnit(let request): startStop(task, request, completion)
        case .sanitize(let request): sanitize(task, request, completion)
        case .formatUnit(let hasList, let isLong): format(task, hasList: hasList, isLong: isLong, completion)
        case .extendedCopy: extendedCopy(task, completion)
        case .persistentReserveOut(let command):
            persistentReserveOut(task, command, completion: completion)
        default:
            completion(formatted(answer(task)))
        }
    }

    /// Sense data in the format that the control mode page asks for.
    func formatted(_ response: SCSIResponse) -> SCSIResponse {
        guard parameters.usesDescriptorSense, var sense = response.sense else { return response }
        sense.format = .descriptor
        return SCSIResponse(status: response.status, sense: sense, dataIn: response.dataIn)
    }

    /// The sectors of a transfer; nil when they are not all on the disk.
    func sectorRange(of transfer: BlockTransfer) -> SectorRange? {
        sectorRange(transfer.logicalBlockAddress, UInt64(transfer.blockCount))
    }

    func sectorRange(_ address: UInt64, _ count: UInt64) -> SectorRange? {
        guard let range = SectorRange(start: address, count: count), range.end <= device.sectorCount else { return nil }
        return range
    }

    /// What a plain write promises: with the write cache off, all that a FUA write does.
    func durability(forceUnitAccess: Bool = false) -> WriteDurability {
        forceUnitAccess || !parameters.isWriteCacheEnabled ? .durable : .ordered
    }
}
