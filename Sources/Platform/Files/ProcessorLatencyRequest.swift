/// Keeps the processors of this machine out of sleep states that they take longer than a bound to leave, as long as this object lives.
///
/// The kernel's PM QoS interface (Linux, Documentation/power/pm_qos_interface.rst): a request stands as long as its file is open,
/// so the end of the process ends it, however it comes.
public final class ProcessorLatencyRequest: Sendable {
    /// The device of the kernel's interface. Usually only root may write to it.
    public static let devicePath = "/dev/cpu_dma_latency"

    private let file: OpenFile

    /// Makes a request. With zero, a processor that has nothing to do looks for work all the time instead of halting, so that whoever wakes
    /// it need not wait for the hypervisor or the hardware.
    /// - Throws: when the kernel has no such device, or this process may not use it.
    public init(microseconds: UInt32, devicePath: String = ProcessorLatencyRequest.devicePath) throws(FileSystemError) {
        file = try OpenFile(devicePath, .write)
        var value = microseconds
        var failure: FileSystemError?
        withUnsafeBytes(of: &value) { raw in
            do throws(FileSystemError) { try file.write(raw, at: 0) } catch { failure = error }
        }
        if let failure { throw failure }
    }
}
