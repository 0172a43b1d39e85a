/* qemu-plugin.h: the name under which plugins include the plugin header. */
#include "../plugin.h"
