import Link

/// Certificates that were made for these tests and are good for nothing else (P-256, valid until the year 2126):
/// an authority, edges that it knows, and an edge of another authority.
enum TestCertificates {
    /// SHA-256 of the authority's certificate in DER.
    static let authorityFingerprint: [UInt8] = [
        0x41, 0x56, 0x72, 0x5F, 0xA5, 0xC0, 0xC2, 0xEB,
        0x8B, 0x8A, 0x28, 0x7A, 0xB7, 0x79, 0x4A, 0x9D,
        0x28, 0x17, 0xA2, 0xA4, 0x3A, 0xC7, 0x26, 0xFA,
        0x72, 0x1F, 0x83, 0x8E, 0xE5, 0xCC, 0x03, 0xB4,
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
        MIIBqjCCAVGgAwIBAgIUCNE3GzSAMqhPvWEdj7Pgq8EO/L0wCgYIKoZIzj0EAwIw
        IjEgMB4GA1UEAwwXQ2F1c2V3YXkgdGVzdCBhdXRob3JpdHkwIBcNMjYxMTI2MDAz
        MTEwWhgPMjEyNjExMDIwMDMxMTBaMCIxIDAeBgNVBAMMF0NhdXNld2F5IHRlc3Qg
        YXV0aG9yaXR5MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE0NQ23fVgXn5Xdm7o
        zQGWqFeIXTXHQyOvecY0DurC1Q6gabq3zQLGi9t3UUtB7b1UiVNYrAqkdWSEpl73
        th+0+aNjMGEwHQYDVR0OBBYEFLjsMrfFJAMVp72CQnrEbCncEJwLMB8GA1UdIwQY
        MBaAFLjsMrfFJAMVp72CQnrEbCncEJwLMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0P
        AQH/BAQDAgEGMAoGCCqGSM49BAMCA0cAMEQCIF1XZln70f56jwRqMw3ndr3x6FDB
        yD9JjIZsn9zbvWVpAiBWYWtVMeM71jRY13yExFwYfzlr72CQ6Xvb7JVQrYRM+w==
        -----END CERTIFICATE-----
        """

    private static let onpremCertificate = """
        -----BEGIN CERTIFICATE-----
        MIIBmTCCAT+gAwIBAgIBETAKBggqhkjOPQQDAjAiMSAwHgYDVQQDDBdDYXVzZXdh
        eSB0ZXN0IGF1dGhvcml0eTAgFw0yNjExMjYwMDMxMTBaGA8yMTI2MTEwMjAwMzEx
        MFowETEPMA0GA1UEAwwGb25wcmVtMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
        YTv3KuRGPamnepH7tf3esWnWycqUbkFXTvn7LNEZrRN7tE08CBMbWG7czSTcVb+n
        iqtLJNIrSbibu8CwZpN+dKN1MHMwDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMC
        B4AwEwYDVR0lBAwwCgYIKwYBBQUHAwEwHQYDVR0OBBYEFL78V9yIt2VMUN8slS+7
        HM/Vk1UgMB8GA1UdIwQYMBaAFLjsMrfFJAMVp72CQnrEbCncEJwLMAoGCCqGSM49
        BAMCA0gAMEUCIQDmtDBEZqV19CmzrVcQUXneDXTl73quKI+TUTgL6TotAwIgRyuL
        cVjFiFuwvbnlYqMyp/sPNpG+4ihlNAvruLovIMA=
        -----END CERTIFICATE-----
        """

    private static let onpremKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg9QCd7Fws2eJC+sau
        2h9vHMyIYPEFxxlMQUtJn8phyXmhRANCAARhO/cq5EY9qad6kfu1/d6xadbJypRu
        QVdO+fss0RmtE3u0TTwIExtYbtzNJNxVv6eKq0sk0itJuJu7wLBmk350
        -----END PRIVATE KEY-----
        """

    private static let cloudCertificate = """
        -----BEGIN CERTIFICATE-----
        MIIBmTCCAT6gAwIBAgIBEjAKBggqhkjOPQQDAjAiMSAwHgYDVQQDDBdDYXVzZXdh
        eSB0ZXN0IGF1dGhvcml0eTAgFw0yNjExMjYwMDMxMTBaGA8yMTI2MTEwMjAwMzEx
        MFowEDEOMAwGA1UEAwwFY2xvdWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAS1
        +v8XVIQcApeqDdKsFVXxn3Hn1RsfvGElDYDsFUrD2cZyscUy/7yibt0KqoOybyH4
        3LiCCDJ4DCNbD8kelTsto3UwczAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIH
        gDATBgNVHSUEDDAKBggrBgEFBQcDAjAdBgNVHQ4EFgQUP1r+AazbtGxQW+MOueTR
        KAZUkREwHwYDVR0jBBgwFoAUuOwyt8UkAxWnvYJCesRsKdwQnAswCgYIKoZIzj0E
        AwIDSQAwRgIhAL23l033tC+79F5IOp8Lgd/P7QFPk3gcO2WL4S37P5OcAiEAwZl6
        glugV+pMQisLvTVjX2w5JDnA3jSX9Hg9TO6bUZc=
        -----END CERTIFICATE-----
        """

    private static let cloudKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgf1D6XSs+pfrfdeD2
        LPSt7B3O4xc5Jo4vIDZwKvyXmJShRANCAAS1+v8XVIQcApeqDdKsFVXxn3Hn1Rsf
        vGElDYDsFUrD2cZyscUy/7yibt0KqoOybyH43LiCCDJ4DCNbD8kelTst
        -----END PRIVATE KEY-----
        """

    private static let otherCertificate = """
        -----BEGIN CERTIFICATE-----
        MIIBmDCCAT6gAwIBAgIBEzAKBggqhkjOPQQDAjAiMSAwHgYDVQQDDBdDYXVzZXdh
        eSB0ZXN0IGF1dGhvcml0eTAgFw0yNjExMjYwMDMxMTFaGA8yMTI2MTEwMjAwMzEx
        MVowEDEOMAwGA1UEAwwFb3RoZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQa
        nOkAwclwdkD1XEDmvQ2yEtAN3oqvQUw5g6sNJ/mdi9e3tmvr0Dfr2ZiLRiSjSSJN
        5aCiYf6ueDIol3IS1BzZo3UwczAMBgNVHRMBAf8EAjAAMA4GA1UdDwEB/wQEAwIH
        gDATBgNVHSUEDDAKBggrBgEFBQcDAjAdBgNVHQ4EFgQUKzE1O7NDWpqND/hIxObD
        2CopOGQwHwYDVR0jBBgwFoAUuOwyt8UkAxWnvYJCesRsKdwQnAswCgYIKoZIzj0E
        AwIDSAAwRQIgSm5L3XDP5VGa4sAHIhXZmMHpcrf69Y8Z6xsr5WtvGwACIQDgZ918
        fhmMdvlfycqylUd6UlRBgiRwb2rx17KcmZkaHg==
        -----END CERTIFICATE-----
        """

    private static let otherKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgCTNXCMSRwMzSNhjb
        tOlwgJoD5D53Vgp+cTDoBY/VizChRANCAAQanOkAwclwdkD1XEDmvQ2yEtAN3oqv
        QUw5g6sNJ/mdi9e3tmvr0Dfr2ZiLRiSjSSJN5aCiYf6ueDIol3IS1BzZ
        -----END PRIVATE KEY-----
        """

    private static let foreignCertificate = """
        -----BEGIN CERTIFICATE-----
        MIIBmjCCAT+gAwIBAgIBFDAKBggqhkjOPQQDAjAhMR8wHQYDVQQDDBZDYXVzZXdh
        eSB0ZXN0IHN0cmFuZ2VyMCAXDTI2MTEyNjAwMzExMVoYDzIxMjYxMTAyMDAzMTEx
        WjASMRAwDgYDVQQDDAdmb3JlaWduMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
        llGBoHjNcLaVaWRZB0ujisLfWXP9EBNo+Ozo9JnIY2LCxd2aHwSOOZEzP49SAG53
        r4/qd2hX9B2L6XMWkJmOLqN1MHMwDAYDVR0TAQH/BAIwADAOBgNVHQ8BAf8EBAMC
        B4AwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0OBBYEFFpyBEEkBSglvixB1d3r
        +jB9wBZ3MB8GA1UdIwQYMBaAFF2LbHLZE3EnMt7rD3k4wPesJu4zMAoGCCqGSM49
        BAMCA0kAMEYCIQCNj0VqdJbgDO8wzk8vHNwld/yaVSA7RT3aZcHTnzfxegIhAP6I
        u7ap+nKbus8UmQmPE4U+ayp1rAYWD9pOpbf3K696
        -----END CERTIFICATE-----
        """

    private static let foreignKey = """
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgNz2RIuoSKvqxuwTk
        VOS+cmdRNrOkvsJfToJONqHSz3GhRANCAASWUYGgeM1wtpVpZFkHS6OKwt9Zc/0Q
        E2j47Oj0mchjYsLF3ZofBI45kTM/j1IAbnevj+p3aFf0HYvpcxaQmY4u
        -----END PRIVATE KEY-----
        """

}
