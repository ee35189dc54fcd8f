import CNetwork
import Glibc
import LoadGenerator
import NIOCore
import Synchronization

/// A wide area network of two ends on one machine: two TUN devices, one of them in a network namespace of its own, and a thread
/// that carries packets between them by the rules of two `PacketLine`s. What uses it are the kernel's own TCP and whatever speaks it.
///
/// Devices and namespace live as long as the process, and go with it, however it ends.
public final class PacketWAN: Sendable {
    /// The MTU of both ends, as of Ethernet. No packet is longer: the kernel cuts its large ones before it gives them to us, or says how they would be
    /// cut (`LinePacket`).
    public static let maximumPacketBytes = 1500

    private struct State {
        var toHome: LineDirection
        var toCloud: LineDirection
        var isStopped = false
    }

    /// Where the ends are.
    public let addresses: WANAddresses
    private let cloud: LineDevice
    private let home: LineDevice
    private let wake: Int32
    private let state: Mutex<State>

    /// Makes the devices and home's namespace, and moves the calling thread there: it is the one that has to call `run`.
    public init(conditions: LineConditions, seed: UInt64) throws(PacketWANError) {
        let (number, cloud) = try Self.makeCloudDevice()
        try cloud.bringUp(address: WANAddresses.address(number: number, host: 1))
        let code = causeway_network_namespace_make()
        guard code == 0 else {
            throw PacketWANError(
                "a network namespace cannot be made", code: -code, action: "Run it as root: it needs CAP_SYS_ADMIN.")
        }
        guard let home = try LineDevice.make("home") else { throw PacketWANError("home's device", code: EBUSY) }
        try LineDevice.bringUpLoopback()
        try home.bringUp(address: WANAddresses.address(number: number, host: 2))
        let besideLine = WANAddresses.address(number: number, host: 3)
        try home.bringUp(address: besideLine, alias: ":1")
        addresses = WANAddresses(number: number, namespace: "/proc/\(getpid())/task/\(causeway_thread_identifier())/ns/net")
        self.cloud = cloud
        self.home = home
        wake = causeway_wake_make()
        // Each direction has a chance of its own, so that what one does changes nothing for the other.
        state = Mutex(
            State(
                toHome: LineDirection(
                    line: PacketLine(conditions: conditions, random: SeededGenerator(seed: seed)), from: cloud.descriptor,
                    to: home.descriptor, besideLine: (besideLine, LineDirection.destinationOffset)),
                toCloud: LineDirection(
                    line: PacketLine(conditions: conditions, random: SeededGenerator(seed: SeededGenerator.mix(seed &+ 1))),
                    from: home.descriptor, to: cloud.descriptor, besideLine: (besideLine, LineDirection.sourceOffset))))
        takeTrains(conditions)
    }

    private func takeTrains(_ conditions: LineConditions) {
        for device in [cloud, home] { device.takeTrains(conditions.carriesTrains) }
    }

    private static func makeCloudDevice() throws(PacketWANError) -> (Int, LineDevice) {
        for number in 0..<WANAddresses.numberLimit {
            if let device = try LineDevice.make("wan\(number)") { return (number, device) }
        }
        throw PacketWANError("all \(WANAddresses.numberLimit) numbers of a WAN are taken", code: EBUSY)
    }

    /// On a fast line packets are read and written together, late by at most this and by a fiftieth of the way: as an interface does that
    /// spares interrupts. A wake-up for each packet of a gigabit takes more of the machine than all else.
    static let togetherAtMost = TimeAmount.microseconds(50)

    /// Carries packets until `stop`.
    public func run() throws(PacketWANError) {
        _ = causeway_wait_exactly()
        let descriptors = [wake, cloud.descriptor, home.descriptor]
        var readable: Int32 = 0b110
        while let wait = try turn(readable: readable) {
            switch wait {
            case .forPackets(let nanoseconds): readable = causeway_wait_readable(descriptors, descriptors.count, nanoseconds)
            case .together(let nanoseconds): readable = causeway_wait_readable(descriptors, 1, nanoseconds)
            }
            if readable < 0 { throw PacketWANError("the devices cannot be waited for", code: -readable) }
            if readable & 0b001 != 0 { causeway_wake_clear(wake) }
            if case .together = wait { readable |= 0b110 }
        }
        cloud.discard()
        home.discard()
    }

    private enum Wait {
        /// Until one comes, or is due in so many nanoseconds; negative: in none.
        case forPackets(Int64)
        /// For so many nanoseconds, whatever comes meanwhile.
        case together(Int64)
    }

    /// Takes in and puts out what is there, and says what to wait for; nil at the end.
    private func turn(readable: Int32) throws(PacketWANError) -> Wait? {
        try state.withLock { state throws(PacketWANError) in
            if state.isStopped { return nil }
            let start = NIODeadline.now()
            let moreToHome = readable & 0b010 != 0 ? try state.toHome.takeIn(now: start) : false
            let moreToCloud = readable & 0b100 != 0 ? try state.toCloud.takeIn(now: start) : false
            let now = NIODeadline.now()
            state.toHome.putOut(now: now)
            state.toCloud.putOut(now: now)
            if moreToHome || moreToCloud { return .forPackets(0) }
            let next = [state.toHome.line.nextArrival, state.toCloud.line.nextArrival].lazy.compactMap { $0 }.min()
            guard let next else { return .forPackets(-1) }
            let wait = (next - .now()).nanoseconds
            let together = min(Self.togetherAtMost.nanoseconds, state.toHome.line.conditions.oneWayDelay.nanoseconds / 50)
            return wait < together ? .together(together) : .forPackets(wait)
        }
    }

    /// Has `run` return.
    public func stop() {
        state.withLock { $0.isStopped = true }
        causeway_wake_set(wake)
    }

    /// What the lines are like for packets that come from now on.
    public var conditions: LineConditions {
        get { state.withLock { $0.toHome.line.conditions } }
        set {
            state.withLock {
                $0.toHome.line.conditions = newValue
                $0.toCloud.line.conditions = newValue
                takeTrains(newValue)
            }
        }
    }

    /// Cuts both directions, has them hold, or restores them.
    public func setState(_ new: LineState) {
        state.withLock {
            let now = NIODeadline.now()
            $0.toHome.setState(new, now: now)
            $0.toCloud.setState(new, now: now)
        }
        causeway_wake_set(wake)
    }

    /// What passed until now.
    public var statistics: LineStatistics {
        let (toHome, toCloud, overruns) = state.withLock { state in
            let now = NIODeadline.now()
            state.toHome.line.advance(now: now)
            state.toCloud.line.advance(now: now)
            return (state.toHome.line, state.toCloud.line, (state.toHome.overrunPackets, state.toCloud.overrunPackets))
        }
        return LineStatistics(
            state: toHome.state, conditions: toHome.conditions,
            toServer: .init(toHome, overrunPackets: overruns.0 &+ cloud.unreadPackets),
            toClient: .init(toCloud, overrunPackets: overruns.1 &+ home.unreadPackets))
    }
}

/// Home's namespace, from outside.
public enum LineNamespace {
    /// Replaces this process by a program that runs in a namespace; returns only by an error.
    public static func execute(_ arguments: [String], in namespace: String) throws(PacketWANError) -> Never {
        let code = causeway_network_namespace_enter(namespace)
        guard code == 0 else {
            throw PacketWANError(
                "the network namespace \(namespace) cannot be entered", code: -code,
                action: "It needs root (CAP_SYS_ADMIN), and the emulator's process must run.")
        }
        let words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        let failure = causeway_execute(words)
        for word in words { free(word) }
        throw PacketWANError("\(arguments.first ?? "") cannot be started", code: -failure)
    }
}
