import Glibc
import Initiator
import Testing

/// A TCP listener on a port of the system's choice that never says a word.
private final class SilentListener {
    let descriptor: Int32
    let port: UInt16

    init() throws {
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        try #require(listener >= 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, length) == 0 && listen(listener, 8) == 0 && getsockname(listener, $0, &length) == 0
            }
        }
        descriptor = listener
        port = UInt16(bigEndian: address.sin_port)
        try #require(bound)
    }

    /// Takes one connection, after it was made, and closes it.
    func acceptAndClose() {
        let connection = accept(descriptor, nil, nil)
        if connection >= 0 { close(connection) }
    }

    deinit { close(descriptor) }
}

@Suite struct ConnectTests {
    private func url(_ port: UInt16) -> String { "iscsi://127.0.0.1:\(port)/iqn.2024-01.test:disk/0" }

    @Test(arguments: ["", "http://x/y", "iscsi://", "iscsi://host/target", "iscsi://%%%"])
    func invalidURL(_ text: String) {
        let session = ISCSIInitiatorSession(url: text)
        #expect {
            try session.connect { _ in }
        } throws: { error in
            if case .invalidURL? = error as? InitiatorError { true } else { false }
        }
        #expect(session.phase == .idle)
        #expect(session.fileDescriptor == -1)
    }

    @Test func refusedConnection() throws {
        var listener: SilentListener? = try SilentListener()
        let port = try #require(listener?.port)
        listener = nil
        #expect {
            _ = try BlockingInitiator(url: url(port), timeoutSeconds: 5)
        } throws: { error in
            if case .connectFailed? = error as? InitiatorError { true } else { false }
        }
    }

    @Test func closedDuringLogin() throws {
        let listener = try SilentListener()
        let session = ISCSIInitiatorSession(url: url(listener.port))
        let loop = InitiatorLoop()
        loop.add(session)
        for _ in 0..<3 {
            var result: Result<Void, InitiatorError>?
            try session.connect { result = $0 }
            listener.acceptAndClose()
            for _ in 0..<100 where result == nil { loop.turn(timeoutNanoseconds: 50_000_000) }
            guard case .failure(.connectFailed) = result else {
                Issue.record("\(String(describing: result))")
                return
            }
            #expect(session.phase == .idle)
        }
    }

    @Test func closeEndsAnAttempt() throws {
        let listener = try SilentListener()
        let session = ISCSIInitiatorSession(url: url(listener.port))
        var results: [Result<Void, InitiatorError>] = []
        try session.connect { results.append($0) }
        #expect(session.phase == .connecting)
        #expect(throws: InitiatorError.self) { try session.connect { _ in } }
        session.service(events: Int16(POLLOUT))
        session.close()
        #expect(results.count == 1)
        #expect(session.phase == .idle)
        session.close()
        #expect(results.count == 1)
    }

    @Test func commandsNeedASession() {
        let session = ISCSIInitiatorSession(url: url(1))
        let command = InitiatorCommand(byteCount: 512)
        #expect(!session.read(command, block: 0, blockCount: 1))
        #expect(!session.write(command, block: 0, blockCount: 1))
        #expect(!session.synchronizeCache(command))
        #expect(!command.isInFlight)
    }
}

@Suite struct OutcomeTests {
    @Test func whatIsWorthAnotherTry() {
        #expect(CommandOutcome.busy.isTransient)
        #expect(CommandOutcome.checkCondition(senseKey: 6, additionalSense: 0x2900).isTransient)
        #expect(CommandOutcome.checkCondition(senseKey: 2, additionalSense: 0x0401).isTransient)
        #expect(!CommandOutcome.checkCondition(senseKey: 3, additionalSense: 0x1100).isTransient)
        #expect(!CommandOutcome.checkCondition(senseKey: 5, additionalSense: 0x2100).isTransient)
        #expect(!CommandOutcome.lost.isTransient)
        #expect(!CommandOutcome.good.isTransient)
    }
}
