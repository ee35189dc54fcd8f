import Glibc

/// Draws ranks 1 ... count with probability proportional to 1 / rank^theta.
///
/// Rejection-inversion after Hörmann and Derflinger ("Rejection-inversion to generate variates from
/// monotone discrete distributions", 1996): no table, so a disk of any size costs nothing to start,
/// and theta may be 1 and more, which Gray's method does not allow.
public struct ZipfGenerator: Sendable {
    public let count: UInt64
    public let theta: Double
    private let integralAtStart: Double
    private let integralAtEnd: Double
    private let shortcut: Double

    /// - Returns: nil when there is nothing to draw from or theta is not a positive, finite number.
    public init?(count: UInt64, theta: Double) {
        guard count > 0, theta > 0, theta.isFinite else { return nil }
        self.count = count
        self.theta = theta
        integralAtStart = Self.integral(1.5, theta) - 1
        integralAtEnd = Self.integral(Double(count) + 0.5, theta)
        shortcut = 2 - Self.inverseIntegral(Self.integral(2.5, theta) - Self.density(2, theta), theta)
    }

    /// The next rank.
    public func next(_ random: inout SeededGenerator) -> UInt64 {
        while true {
            let u = integralAtEnd + random.unit() * (integralAtStart - integralAtEnd)
            let x = Self.inverseIntegral(u, theta)
            let rounded = min(max(x + 0.5, 1), Double(count))
            let rank = min(max(UInt64(rounded), 1), count)
            let k = Double(rank)
            if k - x <= shortcut || u >= Self.integral(k + 0.5, theta) - Self.density(k, theta) { return rank }
        }
    }

    private static func density(_ x: Double, _ theta: Double) -> Double { exp(-theta * log(x)) }

    private static func integral(_ x: Double, _ theta: Double) -> Double {
        let logarithm = log(x)
        return expm1Ratio((1 - theta) * logarithm) * logarithm
    }

    private static func inverseIntegral(_ x: Double, _ theta: Double) -> Double {
        let t = max(x * (1 - theta), -1)
        return exp(log1pRatio(t) * x)
    }

    /// log(1 + x) / x, also near 0.
    private static func log1pRatio(_ x: Double) -> Double {
        abs(x) > 1e-8 ? log1p(x) / x : 1 - x * (0.5 - x * (1.0 / 3 - 0.25 * x))
    }

    /// (exp(x) - 1) / x, also near 0.
    private static func expm1Ratio(_ x: Double) -> Double {
        abs(x) > 1e-8 ? expm1(x) / x : 1 + x * 0.5 * (1 + x * (1.0 / 3) * (1 + 0.25 * x))
    }
}
