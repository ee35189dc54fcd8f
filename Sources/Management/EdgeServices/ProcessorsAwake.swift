import Files

/// What the target asks the kernel for when initiators wait for answers: no processor halts. Used on the event loop.
final class ProcessorsAwake {
    private var request: ProcessorLatencyRequest?
    private let recorder: EventRecorder

    init(recorder: EventRecorder) {
        self.recorder = recorder
    }

    /// - Returns: false when this process may not ask for it, or the kernel can't do it.
    func keep(_ isAwake: Bool) -> Bool {
        request = nil
        if !isAwake { return true }
        do throws(FileSystemError) {
            request = try ProcessorLatencyRequest(microseconds: 0)
            return true
        } catch {
            recorder.record(
                "target.processors_halt",
                "processors may halt between two commands, which costs machines with few of them in flight tens of microseconds each: \(error)"
            )
            return false
        }
    }
}
