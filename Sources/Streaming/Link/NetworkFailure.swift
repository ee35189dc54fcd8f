import Glibc
import NIOCore
import NIOPosix

/// Why a name could not be resolved, or an address not be connected to or listened at, in an operator's words.
public struct NetworkFailure: Error, CustomStringConvertible {
    private let error: any Error

    /// What SwiftNIO threw.
    public init(_ error: any Error) { self.error = error }

    public var description: String {
        switch error {
        case let error as NIOConnectionError:
            // All addresses of the name have been tried; the last one says as much as any.
            if let last = error.connectionErrors.last { return NetworkFailure(last.error).description }
            return "the name \(error.host) can't be resolved"
        case let error as IOError: return Self.text(ofErrorNumber: error.errnoCode) ?? "\(error)"
        case ChannelError.connectTimeout(let time): return "no answer within \(time.nanoseconds / 1_000_000_000) s"
        case SocketAddressError.unknown(let host, _): return "the name \(host) can't be resolved"
        default: return "\(error)"
        }
    }

    private static func text(ofErrorNumber number: CInt) -> String? {
        switch number {
        case ECONNREFUSED: "connection refused: nothing listens there"
        case EADDRINUSE: "the address is in use by another program"
        case EADDRNOTAVAIL: "this machine does not have that address"
        case EACCES: "this user may not use that port"
        case EHOSTUNREACH, ENETUNREACH: "there is no route to it"
        case ETIMEDOUT: "no answer"
        default: nil
        }
    }
}
