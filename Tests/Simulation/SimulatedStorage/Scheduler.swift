import Blocks
import NIOCore

/// A seeded generator (SplitMix64): the only source of chance in a simulated world.
public final class SeededRandom {
    private var state: UInt64

    public init(seed: UInt64) { state = seed }

    /// 64 random bits.
    public func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }

    /// A number in `0 ..< bound`.
    public func below(_ bound: UInt64) -> UInt64 { bound == 0 ? 0 : next() % bound }
    /// A number in `range`.
    public func within(_ range: ClosedRange<Int>) -> Int {
        range.lowerBound + Int(below(UInt64(range.upperBound - range.lowerBound) + 1))
    }
    /// True `percent` times in a hundred.
    public func chance(percent: UInt64) -> Bool { below(100) < percent }
    /// The same generator, as the cores take it.
    public var source: RandomSource { RandomSource { self.next() } }
}

/// A virtual clock and the events that wait for it. One world has one scheduler; everything in
/// the world runs on it, in an order that only the seed decides.
public final class Scheduler {
    /// When an event runs, and where its action is. Without a reference, so that events change places at no cost.
    private struct Event {
        let time: NIODeadline
        let order: UInt64
        let place: Int
    }

    /// What an event does: as a closure alone it would be wrapped in another one by each collection that holds it.
    private struct Action {
        let run: () -> Void
    }

    /// The present of the world.
    public private(set) var now: NIODeadline = .uptimeNanoseconds(1_000_000_000)
    /// The world's chance.
    public let random: SeededRandom
    /// Events that ran so far.
    public private(set) var steps: UInt64 = 0
    private var heap: [Event] = []
    private var order: UInt64 = 0
    /// The actions of the events in the heap, each in a place of its own, and the places that are free.
    private var actions: [Action?] = []
    private var freePlaces: [Int] = []

    public init(seed: UInt64) { random = SeededRandom(seed: seed) }

    /// Runs `action` when `delay` has passed.
    public func schedule(after delay: TimeAmount, _ action: @escaping () -> Void) {
        order += 1
        heap.append(Event(time: now + delay, order: order, place: keep(action)))
        siftUp(heap.count - 1)
    }

    /// Runs `action` after a random delay.
    public func schedule(microseconds range: ClosedRange<Int>, _ action: @escaping () -> Void) {
        schedule(after: .microseconds(Int64(random.within(range))), action)
    }

    /// Forgets all that waits, and with it the world that waits in it.
    public func removeAll() {
        heap.removeAll()
        freePlaces.removeAll()
        // What an action held may look here when it goes.
        let forgotten = actions
        actions.removeAll()
        withExtendedLifetime(forgotten) {}
    }

    /// Runs the next event; false when there is none.
    public func step() -> Bool {
        guard let (time, action) = pop() else { return false }
        now = max(now, time)
        steps += 1
        action.run()
        return true
    }

    /// Runs events until `condition` holds or `deadline` has come; true when it holds.
    public func run(until deadline: NIODeadline, or condition: () -> Bool = { false }) -> Bool {
        while true {
            if condition() { return true }
            guard let next = heap.first, next.time <= deadline else {
                now = max(now, deadline)
                return condition()
            }
            _ = step()
        }
    }

    /// Runs until nothing waits any more. For tests without periodic events; stops at `limit` steps.
    public func runUntilIdle(limit: Int = 1_000_000) {
        var left = limit
        while left > 0, step() { left -= 1 }
    }

    private func keep(_ action: @escaping () -> Void) -> Int {
        guard let place = freePlaces.popLast() else {
            actions.append(Action(run: action))
            return actions.count - 1
        }
        actions[place] = Action(run: action)
        return place
    }

    private func take(_ place: Int) -> Action? {
        freePlaces.append(place)
        return actions[place].take()
    }

    private static func isBefore(_ left: Event, _ right: Event) -> Bool {
        left.time == right.time ? left.order < right.order : left.time < right.time
    }

    private func siftUp(_ start: Int) {
        heap.withUnsafeMutableBufferPointer { heap in
            let event = heap[start]
            var child = start
            while child > 0 {
                let parent = (child - 1) / 2
                if !Self.isBefore(event, heap[parent]) { break }
                heap[child] = heap[parent]
                child = parent
            }
            heap[child] = event
        }
    }

    private func pop() -> (NIODeadline, Action)? {
        guard let first = heap.first, let action = take(first.place) else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty { siftDown(last) }
        return (first.time, action)
    }

    /// Puts an event in the place of the first one.
    private func siftDown(_ event: Event) {
        heap.withUnsafeMutableBufferPointer { heap in
            var parent = 0
            while true {
                var child = 2 * parent + 1
                if child >= heap.count { break }
                if child + 1 < heap.count, Self.isBefore(heap[child + 1], heap[child]) { child += 1 }
                if !Self.isBefore(heap[child], event) { break }
                heap[parent] = heap[child]
                parent = child
            }
            heap[parent] = event
        }
    }
}
