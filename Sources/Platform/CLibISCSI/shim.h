#include <stdint.h>
#include <stddef.h>
#include <sys/uio.h>
#include <sys/time.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
