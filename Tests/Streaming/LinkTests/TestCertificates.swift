import Link

/// Certificates that were made for these tests and are good for nothing else (P-256, valid until the year 2126):
/// an authority, edges that it knows, each for either side of TLS, and an edge of another authority.
enum TestCertificates {
    /// SHA-256 of the authority's certificate in DER.
    static let authorityFingerprint: [UInt8] = [
        0x4E, 0x8C, 0x29, 0x40, 0x6D, 0x51, 0xD9, 0x3A,
        0xFC, 0xD6, 0xEF, 0xF3, 0x5F, 0x38, 0xFD, 0xFA,
        0x7B, 0x1B, 0xD0, 0xFA, 0xA7, 0xA9, 0xA8, 0x19,
        0x72, 0x53, 0x8B, 0xFF, 0xC5, 0x14, 0x9B, 0x92,
    ]

    static let onprem = credentials(onpremCertificate, onpremKey)
    static let cloud = credentials(cloudCertificate, cloudKey)
    static let other = credentials(otherCertificate, otherKey)
    /// Proves itself by an authority that nobody knows.
    static let foreign = credentials(foreignCertificate, foreignKey)
    /// What `cloud` and `onprem` have for serial numbers.
    static let onpremSerial: [UInt8] = [17]
    static let cloudSerial: [UInt8] = [18]
    static let otherSerial: [UInt8] = [19]

    private static func credentials(_ certificate: String, _ key: String) -> LinkCredentials {
        LinkCredentials(certificateChainPEM: certificate, privateKeyPEM: key, authorityPEM: authority)
    }

    static let authority = """
        -----BEGIN CERTIFICATE-----
        MIIBqzCCAVGgAwIBAgIURuEgZYxp7r7MTFil8Tx8kUT+TqkwCgYIKoZIzj0EAwIw
        IjEgMB4GA1UEAwwXQ2F1c2V3YXkgdGVzdCBhdXRob3JpdHkwIBcNMjYxMTI4MTQx
        NjUxWhgPMjEyNjExMDQxNDE2NTFaMCIxIDAeBgNVBAMMF0NhdXNld2F5IHRlc3Qg
        YXV0aG9yaXR5MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEDonJOLGQNOVLRjC3
        pR1ERCVjbkXxjIazmi8eMyyfxIJfLL0NWLlYgzctjLRfJX+5dwzTpWsdAUhvpxZC
        S/6owaNjMGEwHQYDVR0OBBYEFNEzkjX+43//bPrCkr80u/B4V7feMB8GA1UdIwQY
        MBaAFNEzkjX+43//bPrCkr80u/B4V7feMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0P
        AQH/BAQDAgEGMAoGCCqGSM49BAMCA0gAMEUCIQDlxkVu/LytgnABSiFpiieDH4mz
        JWZ9lc+apyzbSSjQmgIgAoGkbNuobV1sTGJ0ZMpbg8MHkMdbwriEG/4l8nGLofA=
        -----END CERTIFICATE-----
        """

    private static let onpremCertificate = """
        -----BEGIN CERTIFICATE-----
        MIIBozCCAUmgAwIBAgIBETAKBggqhkjOPQQDAjAiMSAwHgYDVQQDDBdDYXVzZXdh
        eSB0ZXN0IGF1dGhvcml0eTAgFw0yNjExMjgxNDE2NTFaGA8yMTI2MTEwNDE0MTY1
        MVowETEPMA0GA1UEAwwGb25wcmVtMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
        DAjGifzJmAOiH3GNPqrgOER7EkBWjgQZUGmsLU+CO9mjjy+dFMml1whcgnaEmrDn
        oMbFwttZNsYH3VqEHXc0k6N/MH0wDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMC
        B4AwHQYDVR0lBBYwFAYIKwYBBQUHAwEGCCsGAQUFBwMCMB0GA1UdDgQWBBQ5XYWU
        KJB8kMcre5KnnfL2DVDoQzAfBgNVHSMEGDAWgBTRM5I1/uN//2z6wpK/NLvweFe3
        3jAKBggqhkjOPQQDAgNIADBFAiEA7heoNoGwB5Uo378hfwOXfyY0/8kuF6L7fDc5
        rl4ryicCIB+YPNDgRp7m1zqNnU0AxqY9YkQ4Y/36BbWWg9I8n+UZ
        -----END CERTIFICATE-----
        """

    private static let onpremKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgKN6Rry8gMRUNMvfA
        h+hqJynfa8ukuUckUApT0Dllk/ShRANCAAQMCMaJ/MmYA6IfcY0+quA4RHsSQFaO
        BBlQaawtT4I72aOPL50UyaXXCFyCdoSasOegxsXC21k2xgfdWoQddzST
        -----END PRIVATE KEY-----
        """

    private static let cloudCertificate = """
        -----BEGIN CERTIFICATE-----
        MIIBojCCAUigAwIBAgIBEjAKBggqhkjOPQQDAjAiMSAwHgYDVQQDDBdDYXVzZXdh
        eSB0ZXN0IGF1dGhvcml0eTAgFw0yNjExMjgxNDE2NTFaGA8yMTI2MTEwNDE0MTY1
        MVowEDEOMAwGA1UEAwwFY2xvdWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAR2
        AVNaMc5nvb9gRgMIhpD0G12cXh8iqUpVf+TQP1v3JF6IMcBy80/kr6EDt5L0PvdY
        Ig2AtmhWD6BnuV4VgvU9o38wfTAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIH
        gDAdBgNVHSUEFjAUBggrBgEFBQcDAQYIKwYBBQUHAwIwHQYDVR0OBBYEFGHEQvYe
        oxra7nM5d6Uiq8ygtVexMB8GA1UdIwQYMBaAFNEzkjX+43//bPrCkr80u/B4V7fe
        MAoGCCqGSM49BAMCA0gAMEUCIADh5rfVWTS+KbbmA7ERyVGLe0pLt2gT0RngHJ/h
        dNpCAiEA7s36cqx0/qKA/PPZHKKQCebg9NNP96/Q1LWNQ/HEQk4=
        -----END CERTIFICATE-----
        """

    private static let cloudKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqKheNIHBo4qjMMUl
        PNjxQYp2xtbjNUwT7KpM/517NPyhRANCAAR2AVNaMc5nvb9gRgMIhpD0G12cXh8i
        qUpVf+TQP1v3JF6IMcBy80/kr6EDt5L0PvdYIg2AtmhWD6BnuV4VgvU9
        -----END PRIVATE KEY-----
        """

    private static let otherCertificate = """
        -----BEGIN CERTIFICATE-----
        MIIBojCCAUigAwIBAgIBEzAKBggqhkjOPQQDAjAiMSAwHgYDVQQDDBdDYXVzZXdh
        eSB0ZXN0IGF1dGhvcml0eTAgFw0yNjExMjgxNDE2NTJaGA8yMTI2MTEwNDE0MTY1
        MlowEDEOMAwGA1UEAwwFb3RoZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASH
        GTxxB8CDbGC9xI0ipf0aB17W779TUCpFD5EFFlnMANtgjfI2gPN06oT1cs3Jhkv3
        ZwWzLnyFYyZPaohlXtsOo38wfTAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIH
        gDAdBgNVHSUEFjAUBggrBgEFBQcDAQYIKwYBBQUHAwIwHQYDVR0OBBYEFIAOK0tw
        UpT0FsPUE6wUYzOjm+y/MB8GA1UdIwQYMBaAFNEzkjX+43//bPrCkr80u/B4V7fe
        MAoGCCqGSM49BAMCA0gAMEUCIQDCybE4qNzak4dKaiI/IAL62poUGtkoy0gzm3fs
        ri9jdwIgDKEP5HUAmhvTPf4Ko9f9vpXwXRpL1Sop7CpJQa67qyM=
        -----END CERTIFICATE-----
        """

    private static let otherKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgaUC/RScCV7LsXbgH
        ypSKQWpx8wosZfxqDF86+ywwhn2hRANCAASHGTxxB8CDbGC9xI0ipf0aB17W779T
        UCpFD5EFFlnMANtgjfI2gPN06oT1cs3Jhkv3ZwWzLnyFYyZPaohlXtsO
        -----END PRIVATE KEY-----
        """

    private static let foreignCertificate = """
        -----BEGIN CERTIFICATE-----
        MIIBozCCAUmgAwIBAgIBFDAKBggqhkjOPQQDAjAhMR8wHQYDVQQDDBZBbm90aGVy
        IHRlc3QgYXV0aG9yaXR5MCAXDTI2MTEyODE0MTY1MloYDzIxMjYxMTA0MTQxNjUy
        WjASMRAwDgYDVQQDDAdmb3JlaWduMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
        m8iF2M/IGJvlSJxOdBOzUQo094u/7LOiGUHQuwj159PW2Hl0X6LIoeD8A19NNA+t
        8m6UO3u0R9ZsPsqUozvUyKN/MH0wDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMC
        B4AwHQYDVR0lBBYwFAYIKwYBBQUHAwEGCCsGAQUFBwMCMB0GA1UdDgQWBBRi+Sq2
        qlhMRDo1UGjsDo5VxhOnpDAfBgNVHSMEGDAWgBT6PrE3R0QjDgO+AovVx6RmU+xQ
        wjAKBggqhkjOPQQDAgNIADBFAiB39SMLZBOKf3QmjFBM+hrpEDivEH3wkiUbZ3dH
        ITRniAIhAM6sOXNr+NjoZ5ErwOIo+HuVThPG98DTTlVs3nLDTKkk
        -----END CERTIFICATE-----
        """

    private static let foreignKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgA64Zo7ZdanKi3w5c
        DVIEf7KyFSOK87T8KwULKZlCuwyhRANCAASbyIXYz8gYm+VInE50E7NRCjT3i7/s
        s6IZQdC7CPXn09bYeXRfosih4PwDX000D63ybpQ7e7RH1mw+ypSjO9TI
        -----END PRIVATE KEY-----
        """

}
