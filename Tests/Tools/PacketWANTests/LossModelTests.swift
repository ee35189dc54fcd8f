import LoadGenerator
import Testing

@testable import PacketWAN

struct LossModelTests {
    /// The lengths of the runs of lost packets among `count`.
    private func bursts(_ model: LossModel, count: Int, seed: UInt64) -> (lost: Int, lengths: [Int]) {
        var random = SeededGenerator(seed: seed)
        var state = LossState()
        var lengths: [Int] = []
        var run = 0
        var lost = 0
        for _ in 0..<count {
            if state.losesNext(model, random: &random) {
                run += 1
                lost += 1
            } else if run > 0 {
                lengths.append(run)
                run = 0
            }
        }
        return (lost, lengths)
    }

    @Test func noneLosesNothing() {
        #expect(bursts(.none, count: 10_000, seed: 1).lost == 0)
        #expect(LossModel.none.share == 0)
    }

    @Test(arguments: [0.001, 0.01, 0.1], [1, 2, 3] as [UInt64])
    func randomLossHasItsShareAndNoBursts(share: Double, seed: UInt64) {
        let count = 400_000
        let (lost, lengths) = bursts(.random(share), count: count, seed: seed)
        // Four standard deviations of a binomial distribution.
        let expected = share * Double(count)
        #expect(abs(Double(lost) - expected) < 4 * (expected * (1 - share)).squareRoot())
        let mean = Double(lengths.reduce(0, +)) / Double(lengths.count)
        #expect(abs(mean - 1 / (1 - share)) < 0.05)
    }

    @Test(arguments: [(0.01, 8.0), (0.001, 4), (0.05, 20)], [1, 2, 3] as [UInt64])
    func burstsHaveTheirShareAndTheirMeanLength(model: (share: Double, length: Double), seed: UInt64) {
        let count = 4_000_000
        let loss = LossModel.bursts(model.share, meanLength: model.length)
        #expect(abs(loss.share - model.share) < 1e-12)
        let (lost, lengths) = bursts(loss, count: count, seed: seed)
        // A burst's length has a mean square of about twice its mean's: four standard deviations of the sum of so many.
        let deviation = (2 / Double(lengths.count)).squareRoot()
        #expect(abs(Double(lost) / Double(count) - model.share) < model.share * 4 * deviation)
        let mean = Double(lengths.reduce(0, +)) / Double(lengths.count)
        #expect(abs(mean - model.length) < model.length * 0.1)
        // The lengths are geometric: their standard deviation is about the mean, which no fixed length has.
        let variance = lengths.map { ($0 - Int(mean)) * ($0 - Int(mean)) }.reduce(0, +) / lengths.count
        #expect(Double(variance).squareRoot() > 0.7 * mean)
    }

    @Test func allFourParametersCount() {
        let loss = LossModel(toBad: 0.1, toGood: 0.3, lossWhileGood: 0.02, lossWhileBad: 0.5)
        #expect(abs(loss.share - (0.25 * 0.5 + 0.75 * 0.02)) < 1e-12)
        let (lost, _) = bursts(loss, count: 1_000_000, seed: 5)
        #expect(abs(Double(lost) / 1_000_000 - loss.share) < 0.003)
    }

    @Test func burstsOfASinglePacketAreShort() {
        let (_, lengths) = bursts(.bursts(0.01, meanLength: 1), count: 1_000_000, seed: 1)
        // The line is good for one packet at least between two bad ones.
        #expect(lengths.allSatisfy { $0 == 1 })
    }

    @Test func aShareThatShortBurstsCannotReachIsReachedByLonger() {
        let loss = LossModel.bursts(0.9, meanLength: 2)
        #expect(abs(loss.share - 0.9) < 1e-9 && loss.toBad <= 1 && loss.toGood <= 1)
        #expect(LossModel.bursts(1, meanLength: 1).share > 0.99)
        #expect(LossModel.bursts(0.1, meanLength: .nan).share == LossModel.bursts(0.1, meanLength: 1).share)
    }

    @Test func probabilitiesAreBroughtIntoRange() {
        let loss = LossModel(toBad: -1, toGood: 7, lossWhileGood: .nan, lossWhileBad: .infinity)
        #expect(loss == LossModel(toBad: 0, toGood: 1, lossWhileGood: 0, lossWhileBad: 1))
    }
}
