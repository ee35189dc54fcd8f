import SimulatedStorage

// A demon that waits for names, in some worlds. What a process has removed or renamed is gone for the next one too, and is back when the power
// fails before anybody has made it durable. So whoever finds a directory in which a name is missing, and goes on from there, must see to
// that first. Chance alone is at such a moment in one world of many thousands: this demon kills a process right behind a name that has gone, and
// cuts the power when the next one is at its recovery.

extension World {
    func scheduleNamesDemon() {
        scheduler.schedule(microseconds: 100_000...900_000) { [self] in
            if isCalm || failure != nil { return }
            let edge = edges[volumes[0].edge]
            if scheduler.random.chance(percent: 70) {
                strikeBehindName(on: edge.machine) { [self] in crash(edge, power: false, again: .behindName(edge.machine)) }
            } else {
                strikeBehindName(on: homeMachine) { [self] in crashHome(power: false, again: .behindName(homeMachine)) }
            }
            scheduleNamesDemon()
        }
    }

    /// Strikes when one of the next names has gone from the machine's directories.
    func strikeBehindName(on machine: SimulatedMachine, _ strike: @escaping () -> Void) {
        var left = scheduler.random.below(3)
        machine.onNameGone = { [weak self, unowned machine] in
            guard let self else { return }
            if left > 0 { return left -= 1 }
            machine.onNameGone = nil
            scheduler.schedule(microseconds: 0...1_500) { [self] in
                if !isCalm { strike() }
            }
        }
    }
}
