import CLibISCSI
import Glibc

// A session's life:
//
//            connect            login done
//   idle ─────────────▶ connecting ─────────▶ ready
//    ▲                      │ failed            │ connection broke, command timed out
//    │ close                ▼                   ▼
//    └───────────────────  idle  ◀────────────  idle, `onLoss` was called
//
// The context of libiscsi lives from `connect` to the next idle. Callbacks of libiscsi only take notes;
// the context is destroyed when `iscsi_service` has returned.

/// An iSCSI session with one logical unit, driven by its owner's loop.
public final class ISCSIInitiatorSession {
    /// What can be set before a session connects.
    public struct Options: Sendable {
        /// The name that the target sees.
        public var initiatorName = "iqn.2024-01.org.causeway:initiator"
        /// What makes the ISID, and so the initiator port, the same each time; nil takes a random one.
        public var port: UInt32?
        /// Ask for CRC32C header digests (and take none as an answer if false).
        public var headerDigest = false
        /// After so many seconds without an answer a command counts as lost, and its session with it. 0 waits for ever.
        public var commandTimeoutSeconds: Int32 = 30

        public init() {}
    }

    /// Where the session is in its life.
    public enum Phase: Sendable {
        case idle
        case connecting
        case ready
    }

    public private(set) var phase = Phase.idle
    /// Called once when a ready session has broken, after all its commands ended as `.lost`. May call `connect`.
    public var onLoss: ((String) -> Void)?
    /// The commands in flight.
    public var inFlightCount: Int { inFlight.count }

    let url: String
    let options: Options
    var context: OpaquePointer?
    var logicalUnit: Int32 = 0
    var inFlight: [InitiatorCommand] = []
    private var parsedURL: UnsafeMutablePointer<iscsi_url>?
    private var connectCompletion: ((Result<Void, InitiatorError>) -> Void)?
    private var isInsideLibrary = false
    /// What libiscsi had to say when the session was ready: of errors that were met, and overcome, before.
    private var errorTextAtLogin: String?
    /// `close` was called inside a callback: the break that follows is no loss.
    private var isClosing = false
    /// Why the context must go as soon as libiscsi has returned.
    private var breakReason: String?

    /// A session to be. The URL is read when it connects.
    public init(url: String, options: Options = Options()) {
        self.url = url
        self.options = options
    }

    deinit {
        if let parsedURL { iscsi_destroy_url(parsedURL) }
        if let context { iscsi_destroy_context(context) }
    }

    /// Starts to connect and log in. The completion runs inside a later `service`, or inside `close` (as a failure).
    /// - Throws: `invalidURL`, or `connectFailed` when not even an attempt could be made.
    public func connect(completion: @escaping (Result<Void, InitiatorError>) -> Void) throws(InitiatorError) {
        guard phase == .idle, context == nil else { throw .connectFailed("the session is in use") }
        guard let context = iscsi_create_context(options.initiatorName) else { throw .connectFailed("out of memory") }
        guard let parsed = iscsi_parse_full_url(context, url) else {
            let reason = Self.errorText(context)
            iscsi_destroy_context(context)
            throw .invalidURL(reason)
        }
        self.context = context
        parsedURL = parsed
        logicalUnit = parsed.pointee.lun
        iscsi_set_session_type(context, ISCSI_SESSION_NORMAL)
        if let port = options.port { iscsi_set_isid_random(context, port, 0) }
        iscsi_set_header_digest(context, options.headerDigest ? ISCSI_HEADER_DIGEST_CRC32C_NONE : ISCSI_HEADER_DIGEST_NONE)
        iscsi_set_noautoreconnect(context, 1)
        iscsi_set_timeout(context, options.commandTimeoutSeconds)
        let status = withUnsafeMutablePointer(to: &parsed.pointee) { url -> Int32 in
            let portal = Self.text(url, \.portal)
            iscsi_set_targetname(context, Self.text(url, \.target))
            if Self.text(url, \.user).pointee != 0 {
                iscsi_set_initiator_username_pwd(context, Self.text(url, \.user), Self.text(url, \.passwd))
            }
            if Self.text(url, \.target_user).pointee != 0 {
                iscsi_set_target_username_pwd(context, Self.text(url, \.target_user), Self.text(url, \.target_passwd))
            }
            return iscsi_full_connect_async(
                context, portal, logicalUnit, Self.connected, Unmanaged.passUnretained(self).toOpaque())
        }
        guard status == 0 else {
            let reason = Self.errorText(context)
            destroyContext()
            throw .connectFailed(reason)
        }
        connectCompletion = completion
        phase = .connecting
    }

    /// Ends the session without a logout: what is in flight ends as `.lost`. Does not call `onLoss`.
    public func close() {
        guard context != nil else { return }
        if isInsideLibrary {
            isClosing = true
            markBroken("closed")
            return
        }
        tearDown(reason: "closed", report: false)
    }

    /// The descriptor to poll, or -1.
    public var fileDescriptor: Int32 { context.map { iscsi_get_fd($0) } ?? -1 }
    /// The events to poll it for.
    public var wantedEvents: Int16 { context.map { Int16(truncatingIfNeeded: iscsi_which_events($0)) } ?? 0 }

    /// Sends what waits to be sent, as far as the socket takes it.
    public func sendQueued() {
        let events = wantedEvents & Int16(POLLOUT)
        if phase == .ready && events != 0 { service(events: events) }
    }

    /// Handles what `poll` saw. Call it about once a second with 0 too: timeouts are found here.
    public func service(events: Int16) {
        guard let context, !isInsideLibrary else { return }
        isInsideLibrary = true
        let status = iscsi_service(context, Int32(events))
        isInsideLibrary = false
        if status != 0 && breakReason == nil {
            let text = Self.errorText(context)
            // libiscsi keeps the text of the last error, however long ago that was, and has none for a peer that has gone.
            breakReason = text == errorTextAtLogin ? Self.closedText : text
        }
        if let reason = breakReason { tearDown(reason: reason, report: true) }
    }

    // MARK: - Inside

    /// Notes that the session can't be used any more; the context goes when libiscsi has returned.
    func markBroken(_ reason: String) {
        if breakReason == nil { breakReason = reason }
    }

    private func tearDown(reason: String, report: Bool) {
        let wasReady = phase == .ready
        phase = .idle
        let isLoss = report && wasReady && !isClosing
        isClosing = false
        destroyContext()
        // Destroying the context ends commands through their callbacks; whatever libiscsi forgot ends here.
        while let command = inFlight.last { finish(command, .lost) }
        if let completion = connectCompletion {
            connectCompletion = nil
            completion(.failure(.connectFailed(reason)))
        } else if isLoss {
            onLoss?(reason)
        }
    }

    private func destroyContext() {
        if let parsedURL { iscsi_destroy_url(parsedURL) }
        parsedURL = nil
        guard let old = context else { return }
        context = nil
        isInsideLibrary = true
        iscsi_destroy_context(old)
        isInsideLibrary = false
        breakReason = nil
    }

    private static let connected: iscsi_command_cb = { context, status, _, opaque in
        guard let opaque else { return }
        let session = Unmanaged<ISCSIInitiatorSession>.fromOpaque(opaque).takeUnretainedValue()
        if status == Int32(bitPattern: SCSI_STATUS_GOOD.rawValue), session.phase == .connecting {
            session.phase = .ready
            session.errorTextAtLogin = errorText(context)
            let completion = session.connectCompletion
            session.connectCompletion = nil
            completion?(.success(()))
        } else {
            session.markBroken(errorText(context))
        }
    }

    private static let closedText = "the connection was closed"

    static func errorText(_ context: OpaquePointer?) -> String {
        guard let context, let text = iscsi_get_error(context) else { return "unknown" }
        let message = String(cString: text)
        return message.isEmpty ? closedText : String(message.prefix { $0 != "\n" })
    }

    /// A character array of C, which Swift sees as a tuple, as the C string that it is. The pointee outlives the call of libiscsi.
    private static func text<Characters>(
        _ url: UnsafeMutablePointer<iscsi_url>, _ field: WritableKeyPath<iscsi_url, Characters>
    ) -> UnsafePointer<CChar> {
        let offset = MemoryLayout<iscsi_url>.offset(of: field) ?? 0
        return UnsafeRawPointer(url).advanced(by: offset).assumingMemoryBound(to: CChar.self)
    }
}
