// An SDR SDRAM of four banks and 16 data pins behind its pins' registers, with the rules of its data sheet.
//
// The registers take what is there at a rising edge of clk. The chip's own clock is behind clk, here by half a
// period: order matters, and the delay does not. fault is the first offence (sim/sdram_chip.py), 0 for none;
// from then on nothing counts. Times are cycles, and integers: they are compared with moments before the first.
// What was not written before it is read is anything.
module sdram_chip #(
    parameter integer ROW_BITS = 13,
    parameter integer COLUMN_BITS = 9,
    parameter integer POWER_UP = 10000,   // before the first command
    parameter integer REFRESHES = 8,      // before the first access
    parameter integer REFRESH = 780,      // from one refresh to the next, at most, when a row is opened
    parameter integer T_RP = 1,
    parameter integer T_RCD = 1,
    parameter integer T_RAS = 3,
    parameter integer T_RC = 4,
    parameter integer T_RRD = 1,
    parameter integer T_RFC = 4,
    parameter integer T_WR = 1
) (
    input clk,
    input ras,
    input cas,
    input we,
    input [1:0] bank,
    input [ROW_BITS-1:0] address,
    input [1:0] mask,
    input [15:0] write_data,
    input write_enable,
    output reg [15:0] read_data,
    output reg [7:0] fault
);
    localparam T_MRD = 2;
    localparam [ROW_BITS-1:0] MODE = 'h20;  // CAS latency 2, bursts of one word

    reg [2:0] pin_command = 0;
    reg [1:0] pin_bank = 0;
    reg [ROW_BITS-1:0] pin_address = 0;
    reg [1:0] pin_mask = 0;
    reg [15:0] pin_data = 0;
    reg pin_enable = 0;
    reg [15:0] driven = 0;  // by the chip

    always @(posedge clk) begin
        pin_command <= {ras, cas, we};
        pin_bank <= bank;
        pin_address <= address;
        pin_mask <= mask;
        pin_data <= write_data;
        pin_enable <= write_enable;
        read_data <= driven;
    end

    reg [15:0] cells [0:(1 << (ROW_BITS + 2 + COLUMN_BITS)) - 1];
    reg [ROW_BITS-1:0] row [0:3];
    reg [3:0] open = 0;
    reg precharged = 0;
    reg mode_is_set = 0;
    integer refreshes = 0;
    integer now = 0;
    integer idle_at = 0;          // refresh or mode register's write is over
    integer refreshed_at = 0;
    integer activated_at = -100;  // in any bank
    integer opened_at [0:3];
    integer written_at [0:3];
    integer closed_at [0:3];      // the precharge is over
    reg [1:0] reads = 0;          // in the two cycles before: the chip drives the pins
    reg [15:0] fetched = 0;
    integer b;

    initial begin
        fault = 0;
        read_data = 0;
        for (b = 0; b < 4; b = b + 1) begin
            row[b] = 0;
            opened_at[b] = -100;
            written_at[b] = -100;
            closed_at[b] = 0;
        end
    end

    wire [ROW_BITS+COLUMN_BITS+1:0] place = {row[pin_bank], pin_bank, pin_address[COLUMN_BITS-1:0]};

    task fail(input [7:0] code);
        if (fault == 0) fault = code;
    endtask

    task close(input integer which);
        if (open[which]) begin
            if (now < opened_at[which] + T_RAS) fail(11);
            if (now < written_at[which] + T_WR) fail(12);
            open[which] = 0;
            closed_at[which] = now + T_RP;
        end
    endtask

    // With auto precharge the chip waits by itself for T_RAS and T_WR.
    task close_later(input integer which, input integer earliest);
        begin
            open[which] = 0;
            closed_at[which] = opened_at[which] + T_RAS > earliest ? opened_at[which] + T_RAS : earliest;
            closed_at[which] = closed_at[which] + T_RP;
        end
    endtask

    // The chip's clock. Blocking assignments, in the order in which things happen.
    always @(negedge clk) begin
        now = now + 1;
        // What READ asked for two edges after it, which the controller's register takes before that edge.
        driven = reads[0] ? fetched : 16'hdead ^ now[15:0];
        if (pin_enable && reads != 0) fail(13);
        reads = {reads[0], 1'b0};
        if (pin_command != 0) begin
            if (now < POWER_UP) fail(1);
            if (now < idle_at) fail(2);
            if (!precharged && !(pin_command == 3'b101 && pin_address[10])) fail(3);
        end
        case (pin_command)
            3'b000: ;
            3'b100: begin  // activate
                if (!mode_is_set || refreshes < REFRESHES) fail(4);
                if (open[pin_bank]) fail(5);
                if (now < closed_at[pin_bank]) fail(6);
                if (now < opened_at[pin_bank] + T_RC) fail(7);
                if (now < activated_at + T_RRD) fail(8);
                if (now > refreshed_at + REFRESH) fail(9);
                open[pin_bank] = 1;
                row[pin_bank] = pin_address;
                opened_at[pin_bank] = now;
                activated_at = now;
            end
            3'b010, 3'b011: begin  // read, write
                if (!open[pin_bank] || now < opened_at[pin_bank] + T_RCD) fail(10);
                if (pin_command[0]) begin
                    if (!pin_enable) fail(14);
                    if (!pin_mask[0]) cells[place][7:0] = pin_data[7:0];
                    if (!pin_mask[1]) cells[place][15:8] = pin_data[15:8];
                    written_at[pin_bank] = now;
                end else begin
                    if (pin_mask != 0) fail(15);
                    fetched = cells[place];
                    reads[0] = 1;
                end
                if (pin_address[10]) close_later(pin_bank, now + (pin_command[0] ? T_WR : 1));
            end
            3'b101: begin  // precharge
                precharged = 1;
                for (b = 0; b < 4; b = b + 1) if (pin_address[10] || pin_bank == b) close(b);
            end
            3'b110: begin  // refresh
                for (b = 0; b < 4; b = b + 1) if (open[b] || now < closed_at[b]) fail(16);
                refreshes = refreshes + 1;
                refreshed_at = now;
                idle_at = now + T_RFC;
            end
            3'b111: begin  // mode register
                for (b = 0; b < 4; b = b + 1) if (open[b] || now < closed_at[b]) fail(16);
                if (pin_address != MODE || pin_bank != 0) fail(17);
                mode_is_set = 1;
                idle_at = now + T_MRD;
            end
            default: fail(18);
        endcase
    end
endmodule
