// axi_memory.h with a C interface, for test_axi_memory.py: the ports are a plain struct, the test drives them.
#include "axi_memory.h"

struct Ports {
    uint32_t m_axi_araddr, m_axi_awaddr;
    uint64_t m_axi_rdata, m_axi_wdata;
    uint8_t m_axi_arlen, m_axi_arsize, m_axi_arburst, m_axi_arvalid, m_axi_arready;
    uint8_t m_axi_rresp, m_axi_rlast, m_axi_rvalid, m_axi_rready;
    uint8_t m_axi_awlen, m_axi_awsize, m_axi_awburst, m_axi_awvalid, m_axi_awready;
    uint8_t m_axi_wstrb, m_axi_wlast, m_axi_wvalid, m_axi_wready;
    uint8_t m_axi_bresp, m_axi_bvalid, m_axi_bready;
};

using Model = AxiMemory<Ports>;

extern "C" {
Model* model_new(uint64_t base, uint64_t size, uint64_t latency, uint64_t bandwidth) {
    return new Model(base, size, latency, bandwidth);
}
void model_free(Model* model) { delete model; }
void model_drive(Model* model, Ports* ports, uint64_t now) { model->drive(*ports, now); }
void model_sample(Model* model, Ports* ports, uint64_t now) { model->sample(*ports, now); }
uint8_t* model_data(Model* model) { return model->data.data(); }
const char* model_broken_rule(Model* model) { return model->broken_rule.c_str(); }
uint64_t model_refused(Model* model) { return model->refused; }
uint64_t model_last_moved(Model* model) { return model->last_moved; }
uint64_t model_bytes_written(Model* model) { return model->bytes_written; }
}
