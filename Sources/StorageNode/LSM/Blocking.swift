#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

enum Blocking {
    static func sleep(milliseconds: Int) { usleep(UInt32(milliseconds * 1_000)) }
}
